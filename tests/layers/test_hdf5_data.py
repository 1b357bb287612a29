"""The HDF5Data layer: its rows and their order, resume, and every way a file can be wrong."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from google.protobuf import text_format

from netdef import hdf5
from netdef.blob import Blob
from netdef.errors import DataError, NetdefError, NetError
from netdef.events import DataWrapped, Event
from netdef.layers.hdf5_data import HDF5Data
from netdef.proto import netdef_pb2 as pb
from netdef.solver import Solver
from netdef.testing import Case, Mistake, deliver, locate

KEY = np.uint64(77)
RANDOM = np.random.default_rng(0)

#: Files that last as long as these tests: the cases name them.
_KEPT = tempfile.TemporaryDirectory()
FOLDER = Path(_KEPT.name)


def write(path: Path, options: Any = None, **datasets: Any) -> str:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values, **(options or {}))
    return str(path)


def listing(path: Path, *files: str) -> str:
    path.write_text("\n".join(files) + "\n", encoding="utf-8")
    return str(path)


X = RANDOM.standard_normal((5, 2, 3)).astype(np.float32)
Y = np.arange(5, dtype=np.int64)
TWO = listing(
    FOLDER / "two.txt",
    write(FOLDER / "a.h5", x=X[:2], y=Y[:2], z=X[:2, 0, 0].astype(np.float16)),
    write(FOLDER / "b.h5", x=X[2:].astype(">f8"), y=Y[2:], z=X[2:, 0, 0].astype(np.float16)),
)


def layer_text(tops: str, options: str, source: str = TWO) -> str:
    names = " ".join(f'top: "{top}"' for top in tops)
    return f'type: "HDF5Data" {names} hdf5_data_param {{ source: "{source}" {options} }}'


CASES = [
    Case(layer_text("xy", "batch_size: 2"), [], lambda: (X[:2], Y[:2])),
    Case(layer_text("yx", "batch_size: 7"), [], lambda: (Y[ROWS], X[ROWS])),
    Case(layer_text("z", "batch_size: 3"), [], lambda: X[:3, 0, 0].astype(np.float16)),
]
ROWS = np.arange(7) % 5


def mistake(message: str, at: str, tops: str = "x", options: str = "", more: str = "") -> Mistake:
    text = layer_text(tops, options or "batch_size: 2") + more
    return Mistake(text, (), message, at, error=NetdefError)


MISTAKES = [
    mistake("batch_size is 0, but must be at least 1", "0", options="batch_size: 0"),
    mistake(
        "HDF5Data does not transform data",
        "transform_param",
        more=" transform_param { scale: 2 }",
    ),
    mistake('there is no dataset "q"', f'"{TWO}"', tops="xq"),
    Mistake(
        layer_text("x", "batch_size: 1", "/no/list"),
        (),
        'there is no list of files at "/no/list"',
        '"/no/list"',
        error=DataError,
    ),
]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


Make = Callable[..., HDF5Data]


@pytest.fixture
def make() -> Iterator[Make]:
    """``make(source, options, tops)``: a layer, closed when the test is over."""
    made: list[HDF5Data] = []

    def build(
        source: str = TWO, options: str = "batch_size: 2", tops: Sequence[str] = "xy", **own: Any
    ) -> HDF5Data:
        message = pb.LayerParameter(name="d")
        given = f'type: "HDF5Data" hdf5_data_param {{ source: "{source}" {options} }}'
        text_format.Parse(given, message)
        message.top.extend(tops)
        layer = HDF5Data(message, pb.TRAIN, locate)
        layer.key, layer.dtype = own.get("key", KEY), own.get("dtype", np.float32)
        layer.shapes()
        made.append(layer)
        return layer

    yield build
    for layer in made:
        layer.close()


def rows(layer: HDF5Data, batches: int) -> list[int]:
    """The numbers that "y" holds."""
    at = list(layer.message.top).index("y")
    return [int(y) for _ in range(batches) for y in deliver(layer)[at]]


def test_batches_go_around_and_across_files(make: Make) -> None:
    layer = make()
    events: list[Event] = []
    layer.emit = events.append
    heard = []
    for expected in [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4]]:
        x, y = deliver(layer)
        assert y.tolist() == expected
        np.testing.assert_array_equal(x, X[expected])
        heard.append(len(events))
    assert heard == [0, 0, 1, 1, 2]
    assert events == [DataWrapped("d")] * 2
    assert (layer.records, layer.size) == (10, 5)


@pytest.mark.parametrize("dtype", ["u1", "i8", "<u4", ">i2", "f2", "f4", ">f8"])
@pytest.mark.parametrize("options", [{}, {"chunks": True}, {"compression": "gzip"}])
@pytest.mark.parametrize("net", [np.float32, np.float64])
def test_every_type_and_layout(make: Make, dtype: str, options: Any, net: Any) -> None:
    values = np.arange(6).reshape(3, 2, 1, 1, 1).astype(dtype)
    path = write(Path("f.h5"), options, v=values, y=np.arange(3))
    for shuffle in ("false", "true"):
        layer = make(
            listing(Path("l"), path), f"batch_size: 3 shuffle: {shuffle}", ["v", "y"], dtype=net
        )
        found, y = deliver(layer)
        assert found.dtype == net
        np.testing.assert_array_equal(found, values[y.astype(int)].astype(net))


def test_numbers_beyond_float32(make: Make) -> None:
    path = write(Path("f.h5"), y=np.array([1e300, -1e300, 16777217, 2**53 + 1]))
    (y,) = deliver(make(listing(Path("l"), path), "batch_size: 4", "y"))
    assert y.tolist() == [np.inf, -np.inf, 16777216, 2.0**53]


def test_rows_of_one_number_each_and_names_with_slashes(make: Make) -> None:
    write(Path("f.h5"), **{"a/b": np.arange(4.0), "y": np.arange(4)})
    layer = make(listing(Path("l"), "f.h5"), "batch_size: 3", ["a/b", "y"])
    assert layer.shapes() == [(3,), (3,)]
    assert deliver(layer)[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "a.h5\nb.h5\n",
        "a.h5\r\nb.h5",
        "\n  a.h5\t\n\n b.h5 \n\n",
        "a.h5 b.h5",
        "./a.h5\nsub/../b.h5",
    ],
)
def test_forms_of_lists(make: Make, text: str) -> None:
    Path("sub").mkdir()
    write(Path("a.h5"), y=Y[:2])
    write(Path("b.h5"), y=Y[2:])
    Path("l").write_bytes(text.encode())
    assert rows(make("l", "batch_size: 5", "y"), 1) == [0, 1, 2, 3, 4]


def test_names_with_spaces_and_odd_bytes(make: Make) -> None:
    write(Path("my file.h5"), y=[1])
    write(Path("f.h5"), y=[2])
    Path("f.h5").rename(os.fsdecode(b"f\xe8.h5"))
    Path("l").write_bytes(b"my file.h5\nf\xe8.h5\n")
    assert rows(make("l", "batch_size: 2", "y"), 1) == [1, 2]


def test_files_without_rows_are_stepped_over(make: Make) -> None:
    files = [write(Path(f"{i}.h5"), y=np.arange(n)) for i, n in enumerate([0, 2, 0, 1, 0])]
    layer = make(listing(Path("l"), *files), "batch_size: 4", "y")
    assert layer.size == 3
    assert rows(layer, 2) == [0, 1, 0, 0, 1, 0, 0, 1]


def test_a_batch_of_many_epochs(make: Make) -> None:
    layer = make(options="batch_size: 13")
    events: list[Event] = []
    layer.emit = events.append
    assert rows(layer, 1) == [i % 5 for i in range(13)]
    assert len(events) == 2


# --- shuffled -------------------------------------------------------------------------------------


@pytest.fixture
def many() -> str:
    """Three files of 4, 7 and 1 rows; "y" counts them all."""
    bounds = [0, 4, 11, 12]
    files = [
        write(Path(f"{i}.h5"), x=np.arange(a, b)[:, None], y=np.arange(a, b))
        for i, (a, b) in enumerate(pairwise(bounds))
    ]
    return listing(Path("many.txt"), *files)


def epochs(layer: HDF5Data, count: int) -> list[list[int]]:
    found = rows(layer, 12 * count // layer.config.batch_size)
    return [found[i : i + 12] for i in range(0, 12 * count, 12)]


def test_shuffled_every_row_comes_once_an_epoch(make: Make, many: str) -> None:
    layer = make(many, "batch_size: 4 shuffle: true")
    found = epochs(layer, 12)
    assert all(sorted(epoch) == list(range(12)) for epoch in found)
    assert len({tuple(epoch) for epoch in found}) == 12
    assert list(range(12)) not in found
    # File after file, each in an order of its own.
    files = [[0 if row < 4 else 1 if row < 11 else 2 for row in epoch] for epoch in found]
    changes = [sum(a != b for a, b in pairwise(f)) for f in files]
    assert changes == [2] * 12
    assert len({tuple(dict.fromkeys(f)) for f in files}) > 2


def test_shuffled_datasets_stay_together(make: Make, many: str) -> None:
    layer = make(many, "batch_size: 5 shuffle: true")
    for _ in range(7):
        x, y = deliver(layer)
        np.testing.assert_array_equal(x[:, 0], y)


def test_one_file_is_shuffled_anew_in_every_epoch(make: Make) -> None:
    path = write(Path("f.h5"), y=np.arange(12))
    found = epochs(make(listing(Path("l"), path), "batch_size: 6 shuffle: true", "y"), 5)
    assert len({tuple(epoch) for epoch in found}) == 5


def test_one_file_stays_open_however_often_it_is_gone_through(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(Path("f.h5"), y=np.arange(3))
    layer = make(listing(Path("l"), path), "batch_size: 27 shuffle: true", "y")
    opened: list[str] = []

    def open_file(path: str) -> hdf5.File:
        opened.append(path)
        return real(path)

    real = hdf5.open_file
    monkeypatch.setattr(hdf5, "open_file", open_file)
    for _ in range(5):
        (y,) = deliver(layer)
        assert sorted(y.tolist()) == sorted([0, 1, 2] * 9)
    assert opened == ["f.h5"]


def test_rows_are_read_ahead_by_a_thread_that_ends_with_the_layer(make: Make) -> None:
    layer = make()
    assert rows(layer, 1) == [0, 1]
    [thread] = [t for t in threading.enumerate() if t.name == "d (HDF5Data)"]
    layer.close()
    assert not thread.is_alive()


def test_files_and_rows_have_orders_of_their_own(make: Make) -> None:
    files = [write(Path(f"{i}.h5"), y=np.arange(4) + 4 * i) for i in range(4)]
    layer = make(listing(Path("l"), *files), "batch_size: 16 shuffle: true", "y")
    for _ in range(3):
        found = [rows(layer, 1) for _ in range(4)]
        orders = [
            [tuple(row % 4 for row in epoch if row // 4 == i) for epoch in found] for i in range(4)
        ]
        orders.append([tuple(row // 4 for row in epoch[::4]) for epoch in found])
        assert len({tuple(order) for order in orders}) == 5


def test_the_order_is_that_of_the_key(make: Make, many: str) -> None:
    options = "batch_size: 12 shuffle: true"
    one, same, other = (epochs(make(many, options, key=np.uint64(k)), 2) for k in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("shuffle", ["false", "true"])
@pytest.mark.parametrize("records", [0, 3, 4, 11, 12, 13, 1_000_000_007])
def test_seek_continues_bit_by_bit(make: Make, many: str, records: int, shuffle: str) -> None:
    options = f"batch_size: 1 shuffle: {shuffle}"
    straight, resumed = make(many, options), make(many, options)
    if records < 100:
        rows(straight, records)
    else:
        straight.seek(records)
    rows(resumed, 5)
    resumed.seek(records)
    assert resumed.records == straight.records == records
    assert rows(resumed, 25) == rows(straight, 25)


def test_a_closed_layer_goes_on_where_it_was(make: Make) -> None:
    layer = make()
    assert rows(layer, 1) == [0, 1]
    layer.close()
    layer.close()
    assert rows(layer, 1) == [2, 3]


def test_a_resumed_run_reads_what_the_uncut_run_reads(many: str) -> None:
    Path("net.prototxt").write_text(
        f'layer {{ name: "d" {layer_text("xy", "batch_size: 5 shuffle: true", many)} }} '
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" '
        "inner_product_param { num_output: 1 } } "
        'layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }'
    )
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.001 lr_policy: "fixed" max_iter: 9 snapshot: 4 '
        'snapshot_format: HDF5 snapshot_prefix: "s"'
    )
    uncut, resumed = Solver("solver.prototxt"), Solver("solver.prototxt")
    uncut.solve()
    resumed.solve("s_iter_4.solverstate.h5")
    for mine, theirs in zip(uncut.net.params["ip"], resumed.net.params["ip"], strict=True):
        np.testing.assert_array_equal(mine.data, theirs.data)
    assert resumed.net.layers[0].records == 45
    for solver in (uncut, resumed):
        solver.close()


# --- what can be wrong ----------------------------------------------------------------------------


def refused(call: Callable[[], Any], path: str = "hdf5_data_param/source") -> tuple[str, str]:
    """The message of an error that points at ``path`` inside the layer, and its hint."""
    with pytest.raises((DataError, NetError)) as caught:
        call()
    (found,) = caught.value.diagnostics
    assert found.location is not None
    assert found.location.source == path
    return found.message.removeprefix('layer "d" (HDF5Data): '), found.hint


def test_lists_that_name_nothing(make: Make) -> None:
    for content, said in [
        (b"", 'the list "l" names no file'),
        (b" \r\n\n", 'the list "l" names no file'),
        (b"x" * (17 << 20), 'the list "l" has more than'),
        (b"gone.h5", '"gone.h5" cannot be read: there is no such file'),
        (b"l", '"l" cannot be read: it is no HDF5 file'),
        (b"a\x1b.h5", r'"a\x1b.h5" cannot be read: there is no such file'),
        ("f.h5\n".encode("utf-16"), 'the list "l" is in UTF-16'),
    ]:
        Path("l").write_bytes(content)
        message, hint = refused(lambda: make("l"))
        assert message.startswith(said)
        assert ("current folder" in hint) == ("no such file" in said)
    assert refused(lambda: make("."))[0] == 'there is no list of files at "."'
    assert refused(lambda: make(""), "hdf5_data_param")[0] == "no source is given"
    path = write(Path("f.h5"), y=Y)
    message, hint = refused(lambda: make(path))
    assert message == '"f.h5" is an HDF5 file, where a list of such files is expected'
    assert hint == "write its path into a text, and give that as source"


def test_a_list_that_begins_with_a_mark(make: Make) -> None:
    path = write(Path("f.h5"), x=X)
    Path("l").write_bytes(b"\xef\xbb\xbf" + path.encode())
    assert make("l", tops="x").size == len(X)


@pytest.mark.parametrize(
    ("datasets", "said"),
    [
        ({"y": Y}, '"f.h5" cannot be read at /: there is no dataset "x"'),
        ({"x": X, "y": Y[1:]}, 'in "f.h5" dataset "y" has 4 rows, but "x" has 5'),
        ({"x": 1.0, "y": Y}, 'dataset "x" of "f.h5" is a single number, without rows'),
        ({"x": X[:0], "y": Y[:0]}, "the files have no rows"),
        (
            {"x": X.astype("S1"), "y": Y},
            '"f.h5" cannot be read at /x: it holds texts, not numbers',
        ),
        ({"x/z": X, "y": Y}, '"f.h5" cannot be read at /x: it is a group, not a dataset'),
    ],
)
def test_files_that_do_not_fit(make: Make, datasets: Any, said: str) -> None:
    path = write(Path("f.h5"), **datasets)
    assert refused(lambda: make(listing(Path("l"), path)))[0] == said


def test_files_that_differ(make: Make) -> None:
    files = [write(Path("a.h5"), x=X, y=Y), write(Path("b.h5"), x=X[:, :, :2], y=Y)]
    assert refused(lambda: make(listing(Path("l"), *files)))[0] == (
        'a row of "x" is 2x2 in "b.h5", but 2x3 in "a.h5"'
    )


def test_a_file_that_claims_more_than_it_has(make: Make) -> None:
    path = write(Path("f.h5"), y=np.arange(4321))
    content = Path(path).read_bytes()
    honest, lie = ((n).to_bytes(8, "little") for n in (4321, 1 << 40))
    Path(path).write_bytes(content.replace(honest, lie))
    message, _ = refused(lambda: make(listing(Path("l"), path), tops="y"))
    assert message.startswith('"f.h5" cannot be read at /y: ')


@pytest.mark.parametrize("shuffle", ["false", "true"])
def test_a_file_that_changes_while_it_is_used(make: Make, shuffle: str) -> None:
    files = [write(Path("a.h5"), x=X, y=Y), write(Path("b.h5"), x=X, y=Y)]
    layer = make(listing(Path("l"), *files), f"batch_size: 5 shuffle: {shuffle}")
    deliver(layer)
    # What was read ahead is forgotten.
    layer.close()
    for path in files:
        Path(path).unlink()
        write(Path(path), x=X[:3], y=Y[:3])
    top = [Blob(np.zeros((5, 2, 3), np.float32)), Blob(np.zeros(5, np.float32))]
    message, _ = refused(lambda: layer.forward([], top))
    assert message in [f'"{path}" has changed since the net was built' for path in files]
    layer.close()
    for path in files:
        Path(path).unlink()
    message, _ = refused(lambda: layer.forward([], top))
    assert "there is no such file" in message
