"""The Data layer: batches of real Caffe, resume, shapes, and every way a database can be wrong."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest
from google.protobuf import text_format

from netdef.data.datum import DatumImages
from netdef.data.images import ImageSource
from netdef.errors import DataError, NetdefError, NetError
from netdef.events import DataWrapped, Event, Warned
from netdef.layers.common.records import Stretch
from netdef.layers.data import Data
from netdef.proto import netdef_pb2 as pb
from netdef.testing import Case, Mistake, assert_seek_continues, deliver, locate

KEY = np.uint64(77)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (10, 3, 9, 12), np.uint8)


GOLDEN = Path(__file__).parent.parent / "golden" / "data"


def case(name: str) -> Case:
    """The first batch that real Caffe made of a database in ``golden/data``, exact in any float."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        [layer] = text_format.Parse(str(arrays["prototxt"]), pb.NetParameter()).layer
        expected = arrays["batch0/data"], arrays["batch0/label"]
    layer.data_param.source = str(GOLDEN / layer.data_param.source)
    layer.ClearField("name")
    text = text_format.MessageToString(layer, as_one_line=True)
    return Case(text, [], lambda: expected, phase=pb.TEST)


CASES = [case("lmdb_plain"), case("gray_onevalue"), case("lmdb_crop_scale_meanvalue")]


def mistake(
    options: str, message: str, at: str, bottoms: Any = (), source: str = f"{GOLDEN}/gray_lmdb"
) -> Mistake:
    text = f'type: "Data" data_param {{ source: "{source}" {options} }}'
    return Mistake(text, bottoms, message, at, error=NetdefError)


MISTAKES = [
    mistake("batch_size: 0", "batch_size is 0, but must be at least 1", "0"),
    mistake("batch_size: 2", "takes no bottom blobs, but 1 given", '"x0"', [(2, 3)]),
    mistake(
        "batch_size: 2 } transform_param { crop_size: 99",
        'record 0 (key "00000000_',
        "99",
    ),
    mistake("batch_size: 2", "there is no database at", '"/no/such/db"', source="/no/such/db"),
]


def datum(image: np.ndarray, label: int = 0) -> bytes:
    channels, height, width = image.shape
    message = pb.Datum(channels=channels, height=height, width=width, label=label)
    if image.dtype == np.uint8:
        message.data = image.tobytes()
    else:
        message.float_data.extend(image.ravel().tolist())
    return message.SerializeToString()


def png(image: np.ndarray) -> bytes:
    picture = np.ascontiguousarray(image.transpose(1, 2, 0))
    return pb.Datum(
        data=cv2.imencode(".png", picture)[1].tobytes(), encoded=True
    ).SerializeToString()


def write(folder: Path, values: list[bytes]) -> Path:
    with lmdb.open(str(folder), map_size=1 << 26) as env, env.begin(write=True) as txn:
        for i, value in enumerate(values):
            txn.put(f"{i:08d}".encode(), value)
    return folder


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Ten records; label i is that of IMAGES[i]."""
    return write(tmp_path / "db", [datum(image, i) for i, image in enumerate(IMAGES)])


class Layers:
    """Makes layers and closes them when the test is over."""

    def __init__(self) -> None:
        self.made: list[Data] = []

    def __call__(
        self,
        source: Path | str = "",
        data: str = "batch_size: 4",
        transform: str = "",
        phase: int = pb.TRAIN,
        dtype: type[Any] = np.float32,
        tops: int = 2,
        text: str = "",
    ) -> Data:
        message = pb.LayerParameter()
        backend = "" if "backend" in data else "backend: LMDB"
        given = f'data_param {{ source: "{source}" {data} {backend} }} '
        given += f"transform_param {{ {transform} }}"
        text_format.Parse(text or f'name: "d" type: "Data" {given}', message)
        del message.top[:]
        message.top.extend(["data", "label"][:tops])
        layer = Data(message, phase, locate)
        layer.key = KEY
        layer.dtype = dtype
        self.made.append(layer)
        return layer


@pytest.fixture
def make() -> Iterator[Layers]:
    layers = Layers()
    yield layers
    for layer in layers.made:
        layer.close()
    assert not [t for t in threading.enumerate() if t.name.endswith("(Data)")]


def labels(layer: Data, batches: int) -> list[list[int]]:
    return [deliver(layer)[1].astype(int).tolist() for _ in range(batches)]


REFERENCES = [
    "lmdb_plain",
    "lmdb_crop_scale_meanvalue",
    "lmdb_meanfile_crop",
    "gray_onevalue",
    "encoded_png",
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", REFERENCES)
def test_agrees_with_caffe(
    golden: Path,
    name: str,
    dtype: type[Any],
    make: Layers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three batches of real Caffe in phase TEST, from the databases it read."""
    monkeypatch.chdir(golden / "data")
    reference = np.load(f"{name}.npz")
    net = text_format.Parse(str(reference["prototxt"]), pb.NetParameter())
    layer = make(text=str(net.layer[0]), phase=pb.TEST, dtype=dtype)
    first = reference["batch0/data"]
    assert layer.shapes() == [first.shape, first.shape[:1]]
    for i in range(3):
        data, label = deliver(layer)
        assert data.dtype == dtype
        np.testing.assert_array_equal(label, reference[f"batch{i}/label"])
        if dtype == np.float32:
            np.testing.assert_array_equal(data, reference[f"batch{i}/data"])
        else:
            np.testing.assert_allclose(data, reference[f"batch{i}/data"], rtol=1e-6, atol=1e-5)


def test_shapes_need_no_thread(database: Path, make: Layers) -> None:
    before = threading.active_count()
    assert make(database).shapes() == [(4, 3, 9, 12), (4,)]
    assert make(database, tops=1).shapes() == [(4, 3, 9, 12)]
    assert make(database, transform="crop_size: 5").shapes() == [(4, 3, 5, 5), (4,)]
    assert make(database).size == 10
    assert threading.active_count() == before


def test_batches_go_around(database: Path, make: Layers) -> None:
    layer = make(database)
    events: list[Event] = []
    layer.emit = events.append
    heard = []
    for expected in [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1], [2, 3, 4, 5], [6, 7, 8, 9]]:
        data, label = deliver(layer)
        assert label.tolist() == expected
        np.testing.assert_array_equal(data, IMAGES[expected])
        heard.append(len(events))
    # Caffe says so when it has read the last record, not when it reads the first one again.
    assert heard == [0, 0, 1, 1, 2]
    assert events == [DataWrapped("d")] * 2
    assert layer.records == 20


def test_a_batch_larger_than_the_database(database: Path, make: Layers) -> None:
    layer = make(database, "batch_size: 23")
    events: list[Event] = []
    layer.emit = events.append
    assert labels(layer, 1) == [[i % 10 for i in range(23)]]
    assert events == [DataWrapped("d")] * 2


def test_without_labels(database: Path, make: Layers) -> None:
    [data] = deliver(make(database, tops=1))
    np.testing.assert_array_equal(data, IMAGES[:4])


AUGMENTED = "crop_size: 5 mirror: true scale: 0.5 mean_value: 100"


@pytest.mark.parametrize("records", [0, 4, 8, 12, 28, 36, 1_000_000_008])
@pytest.mark.parametrize("started", [False, True])
def test_seek_continues_bit_by_bit(
    database: Path, make: Layers, records: int, started: bool
) -> None:
    straight = make(database, "batch_size: 4 rand_skip: 7", AUGMENTED)
    resumed = make(database, "batch_size: 4 rand_skip: 7 prefetch: 1", AUGMENTED)
    if started:
        deliver(resumed)
    assert_seek_continues(straight, resumed, records)
    assert resumed.records == records + 16


def test_draws_are_those_of_the_key(database: Path, make: Layers) -> None:
    def run(key: int) -> list[np.ndarray]:
        layer = make(database, transform=AUGMENTED)
        layer.key = np.uint64(key)
        return [deliver(layer)[0] for _ in range(3)]

    np.testing.assert_array_equal(run(1), run(1))
    assert (np.array(run(1)) != np.array(run(2))).any()


def test_each_epoch_draws_anew(database: Path, make: Layers) -> None:
    layer = make(database, "batch_size: 10", AUGMENTED)
    first, second = deliver(layer), deliver(layer)
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[0] != second[0]).any()


def test_rand_skip_stays_below_its_bound(database: Path, make: Layers) -> None:
    """All of the 4 skips turn up in 200 keys; missing one has a chance of 4 * 0.75**200 < 1e-24."""
    seen = set()
    for key in range(200):
        layer = make(database, "batch_size: 1 rand_skip: 4")
        layer.key = np.uint64(key)
        seen.add(labels(layer, 1)[0][0])
        layer.close()
    assert seen == {0, 1, 2, 3}


def test_every_batch_takes_the_shape_of_its_records(tmp_path: Path, make: Layers) -> None:
    sizes = [(1, 2, 3), (1, 2, 3), (3, 5, 4), (3, 5, 4)]
    images = [RNG.integers(0, 256, size, np.uint8) for size in sizes]
    layer = make(write(tmp_path / "db", [datum(i) for i in images]), "batch_size: 2")
    for _ in range(2):
        for pair in (images[:2], images[2:]):
            data, _ = deliver(layer)
            np.testing.assert_array_equal(data, np.array(pair))


def test_records_of_every_kind_and_size_in_one_batch(tmp_path: Path, make: Layers) -> None:
    images = [RNG.integers(0, 256, (3, 7 + i, 9 - i), np.uint8) for i in range(3)]
    values = [datum(images[0]), png(images[1]), datum(images[2].astype(np.float32) / 3)]
    layer = make(
        write(tmp_path / "db", values), "batch_size: 3", "crop_size: 7 scale: 2", phase=pb.TEST
    )
    data, _ = deliver(layer)
    np.testing.assert_array_equal(data[0], images[0][:, :, 1:8] * 2.0)
    np.testing.assert_array_equal(data[1], images[1][:, :7, :7] * 2.0)
    third = (images[2].astype(np.float32) / 3)[:, 1:8, :]
    np.testing.assert_array_equal(data[2], third * np.float32(2))


def test_more_records_than_one_run(
    database: Path, make: Layers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netdef.data.batches.RUN_BYTES", 3 * IMAGES[0].size * 4)
    layer = make(database, "batch_size: 16")
    for start in (0, 16):
        data, label = deliver(layer)
        expected = np.arange(start, start + 16) % 10
        np.testing.assert_array_equal(label, expected)
        np.testing.assert_array_equal(data, IMAGES[expected])


def test_force_color_and_force_gray(tmp_path: Path, make: Layers) -> None:
    gray = RNG.integers(0, 256, (1, 4, 5), np.uint8)
    folder = write(tmp_path / "db", [png(gray)])
    for data, transform, channels in [
        ("", "", 1),
        ("", "force_color: true", 3),
        ("force_encoded_color: true", "", 3),
        ("", "force_gray: true", 1),
    ]:
        layer = make(folder, f"batch_size: 1 {data}", transform)
        assert layer.shapes()[0] == (1, channels, 4, 5)
        np.testing.assert_array_equal(deliver(layer)[0][0], np.repeat(gray, channels, axis=0))


def test_force_color_on_raw_records_is_reported_once(database: Path, make: Layers) -> None:
    layer = make(database, transform="force_gray: true")
    events: list[Event] = []
    layer.emit = events.append
    assert deliver(layer)[0].shape == (4, 3, 9, 12)
    deliver(layer)
    assert [type(event) for event in events] == [Warned]


@pytest.mark.parametrize(
    ("backend", "said"),
    [("backend: LEVELDB", "backend is LEVELDB, "), (" ", "LEVELDB if not given")],
)
def test_a_backend_that_is_wrong_is_reported_once(
    database: Path, make: Layers, backend: str, said: str
) -> None:
    layer = make(database, f"batch_size: 4 {backend}", "force_gray: true")
    if backend == " ":
        layer.message.data_param.ClearField("backend")
    events: list[Event] = []
    layer.emit = events.append
    deliver(layer)
    deliver(layer)
    first, second = [event.text for event in events if isinstance(event, Warned)]
    assert "force_gray" in first
    assert said in second
    assert f'"{database}" is of kind LMDB: write  backend: LMDB' in second


def test_a_leveldb_has_the_batches_of_caffe(make: Layers, shared: Path) -> None:
    with np.load(shared / "reference" / "data" / "leveldb_plain.npz") as expected:
        pipeline = shared / "reference" / "pipeline"
        layer = make(pipeline / "color_leveldb", "batch_size: 3 backend: LEVELDB", phase=pb.TEST)
        for batch in range(3):
            data, label = deliver(layer)
            np.testing.assert_array_equal(data, expected[f"batch{batch}/data"])
            np.testing.assert_array_equal(label, expected[f"batch{batch}/label"])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten records as in ``database``, but encoded."""
    values = []
    for i, image in enumerate(IMAGES):
        message = pb.Datum.FromString(png(image))
        message.label = i
        values.append(message.SerializeToString())
    return write(tmp_path / "pictures", values)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_that_decode_change_nothing(
    database: Path, pictures: Path, make: Layers, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setenv("NETDEF_DATA_THREADS", str(threads))
    plain = make(database, "batch_size: 7", AUGMENTED)
    encoded = make(pictures, "batch_size: 7", AUGMENTED)
    for _ in range(5):
        for a, b in zip(deliver(plain), deliver(encoded), strict=True):
            np.testing.assert_array_equal(a, b)
    # A run that resumes with other threads goes on with the same records.
    monkeypatch.setenv("NETDEF_DATA_THREADS", "3")
    assert_seek_continues(plain, encoded, 42)


def test_threads_end_with_the_layer_that_decodes(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETDEF_DATA_THREADS", "3")

    def decoding() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name.startswith("decode")]

    layer = Layers()(pictures)
    deliver(layer)
    assert len(decoding()) == 2
    layer.close()
    assert decoding() == []
    deliver(layer)
    left = decoding()
    assert len(left) == 2
    del layer
    gc.collect()
    for thread in left:
        thread.join(20)
        assert not thread.is_alive()


def test_waiting_is_added_up_over_stretches_of_ten_seconds() -> None:
    stretch = Stretch(now=100.0, waited=7.0)
    assert [stretch.waiting(now, 8.0) for now in (100.0, 104.0, 109.75)] == [0, 0, 0]
    assert stretch.waiting(110.0, 9.5) == 0.25
    assert stretch.waiting(119.0, 9.5) == 0
    assert stretch.waiting(130.0, 19.5) == 0.5


def test_waiting_for_data_is_told_once(
    database: Path, make: Layers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netdef.layers.common.records.STRETCH_SECONDS", 1e-9)
    layer = make(database)
    events: list[Event] = []
    layer.emit = events.append
    deliver(layer)
    assert events == []
    for _ in range(3):
        assert layer._prefetch is not None
        layer._prefetch.waited += 1e6
        deliver(layer)
    [told] = [event.text for event in events if isinstance(event, Warned)]
    assert told.startswith('layer "d" (Data): the net waited for data ')
    assert layer.waited >= 3e6
    layer.close()
    assert layer.waited >= 3e6


def test_two_layers_read_one_database(database: Path, make: Layers) -> None:
    train, test = make(database), make(database, "batch_size: 3", phase=pb.TEST)
    assert labels(train, 1) + labels(test, 1) + labels(train, 1) + labels(test, 1) == [
        [0, 1, 2, 3],
        [0, 1, 2],
        [4, 5, 6, 7],
        [3, 4, 5],
    ]


def test_a_closed_layer_starts_where_it_was(database: Path, make: Layers) -> None:
    layer = make(database)
    assert labels(layer, 1) == [[0, 1, 2, 3]]
    layer.close()
    layer.close()
    assert labels(layer, 1) == [[4, 5, 6, 7]]


def test_the_thread_ends_with_the_layer(database: Path) -> None:
    layer = Layers()(database)
    deliver(layer)
    [thread] = [t for t in threading.enumerate() if t.name == "d (Data)"]
    gone = weakref.ref(layer)
    del layer
    gc.collect()
    assert gone() is None
    thread.join(20)
    assert not thread.is_alive()


# -- what can be wrong -----------------------------------------------------------------------------


def said(error: NetdefError, path: str) -> str:
    """The message of an error that must point at ``path`` inside the layer."""
    [diagnostic] = error.diagnostics
    assert diagnostic.location is not None
    assert diagnostic.location.source == path
    return diagnostic.message.removeprefix('layer "d" (Data): ')


@pytest.mark.parametrize(
    ("data", "transform", "path", "message"),
    [
        ("", "", "data_param/batch_size", "batch_size is missing"),
        (
            "batch_size: 1 prefetch: 0",
            "",
            "data_param/prefetch",
            "prefetch is 0, but must be at least 1",
        ),
        (
            "batch_size: 1",
            "crop_size: 10",
            "transform_param/crop_size",
            'record 0 (key "00000000") of "db" is 3 x 9 x 12, smaller than crop_size 10',
        ),
        (
            "batch_size: 1",
            "mean_value: 1 mean_value: 2",
            "transform_param/mean_value",
            'record 0 (key "00000000") of "db" is 3 x 9 x 12, but 2 mean_value are given',
        ),
        (
            "batch_size: 1",
            'mean_file: "gone"',
            "transform_param/mean_file",
            'the mean "gone" cannot be read: No such file or directory',
        ),
        (
            "batch_size: 1",
            'mean_file: "m" mean_value: 1',
            "transform_param/mean_value",
            "both mean_file and mean_value are given",
        ),
        (
            "batch_size: 1 force_encoded_color: true",
            "force_gray: true",
            "data_param/force_encoded_color",
            "both force_encoded_color and force_gray are set",
        ),
    ],
)
def test_options_that_do_not_fit(
    database: Path,
    make: Layers,
    monkeypatch: pytest.MonkeyPatch,
    data: str,
    transform: str,
    path: str,
    message: str,
) -> None:
    monkeypatch.chdir(database.parent)
    with pytest.raises((NetError, DataError)) as caught:
        make("db", data, transform).shapes()
    assert said(caught.value, path) == message


def test_a_missing_database(make: Layers, tmp_path: Path) -> None:
    layer = make(tmp_path / "gone")
    for ask in (layer.shapes, lambda: layer.next_shapes([]), lambda: layer.size):
        with pytest.raises(DataError) as caught:
            ask()
        assert "there is no database at" in said(caught.value, "data_param/source")


def fourth(value: bytes, tmp_path: Path) -> Path:
    values = [datum(image) for image in IMAGES]
    values[3] = value
    return write(tmp_path / "db", values)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"no datum", "is no Datum"),
        (
            datum(IMAGES[0])[:-5],
            "is no Datum",
        ),
        (
            pb.Datum(channels=3, height=9, width=12, data=b"short").SerializeToString(),
            "has 5 bytes of data, but 3 channels of 9 x 12 are 324 of them",
        ),
        (
            datum(IMAGES[0][:1]),
            'becomes 1 x 9 x 12, but record 2 (key "00000002") of "{folder}", the first of its '
            "batch, becomes 3 x 9 x 12",
        ),
        (
            pb.Datum(data=b"no image", encoded=True).SerializeToString(),
            "is an image that cannot be decoded",
        ),
    ],
)
@pytest.mark.parametrize(("prefetch", "threads"), [(1, 1), (4, 1), (4, 3)])
def test_a_bad_record_is_named_after_the_batches_before_it(
    tmp_path: Path,
    make: Layers,
    monkeypatch: pytest.MonkeyPatch,
    value: bytes,
    message: str,
    prefetch: int,
    threads: int,
) -> None:
    monkeypatch.setenv("NETDEF_DATA_THREADS", str(threads))
    folder = fourth(value, tmp_path)
    layer = make(folder, f"batch_size: 2 prefetch: {prefetch}")
    assert layer.shapes()[0] == (2, 3, 9, 12)
    deliver(layer)
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            layer.next_shapes([])
        expected = f'record 3 (key "00000003") of "{folder}" {message.format(folder=folder)}'
        assert said(caught.value, "data_param/source") == expected
    assert layer.records == 2
    layer.close()
    # Past the bad record, all is well.
    layer.seek(4)
    np.testing.assert_array_equal(deliver(layer)[0], IMAGES[4:6])


def test_a_record_smaller_than_the_crop(tmp_path: Path, make: Layers) -> None:
    folder = fourth(datum(IMAGES[0][:, :4, :4]), tmp_path)
    layer = make(folder, transform="crop_size: 5")
    with pytest.raises(DataError) as caught:
        deliver(layer)
    message = said(caught.value, "transform_param/crop_size")
    assert message.startswith('record 3 (key "00000003")')
    assert message.endswith("is 3 x 4 x 4, smaller than crop_size 5")


def test_a_mean_of_another_shape(golden: Path, database: Path, make: Layers) -> None:
    mean = golden / "data" / "mean.binaryproto"
    with pytest.raises(DataError) as caught:
        make(database, transform=f'mean_file: "{mean}"').shapes()
    message = said(caught.value, "transform_param/mean_file")
    assert message.endswith(f'is 3 x 9 x 12, but the mean in "{mean}" is 3 x 32 x 40')


def test_a_batch_that_fits_no_memory(tmp_path: Path, make: Layers) -> None:
    folder = write(tmp_path / "db", [datum(np.zeros((3, 200, 200), np.uint8))])
    layer = make(folder, "batch_size: 4294967295", tops=1)  # 2 PB: no machine promises that
    with pytest.raises(DataError) as caught:
        layer.next_shapes([])
    assert "there is no memory for 4 batches" in said(caught.value, "data_param/batch_size")


def test_a_database_that_is_written_while_it_is_read(database: Path, make: Layers) -> None:
    layer = make(database, "batch_size: 1 prefetch: 1")
    layer.next_shapes([])  # takes the only batch: nothing is read until it is delivered
    write(database, [datum(IMAGES[0])])
    deliver(layer)
    with pytest.raises(DataError, match="was written to by another program"):
        deliver(layer)


def test_a_file_cut_short_while_copying(golden: Path, tmp_path: Path, make: Layers) -> None:
    folder = tmp_path / "db"
    shutil.copytree(golden / "data" / "color_lmdb", folder)
    whole = (folder / "data.mdb").read_bytes()
    (folder / "data.mdb").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is cut short"):
        make(folder).shapes()


def test_close_lets_go_of_the_database(
    database: Path, make: Layers, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[ImageSource] = []
    monkeypatch.setattr(DatumImages, "close", lambda images: closed.append(images))
    layer = make(database)
    layer.shapes()
    assert layer.size == 10
    assert len(closed) == 1
    deliver(layer)
    assert len(closed) == 1
    layer.close()
    layer.close()
    assert len(closed) == 2
