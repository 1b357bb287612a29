"""What is written is what Caffe writes, and comes back; a kill or a full disk spoils nothing."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from netdef.blob import Array
from netdef.errors import Location, OutputError, WeightsError
from netdef.proto import netdef_pb2 as pb
from netdef.snapshot import (
    Cursor,
    State,
    find_learned_net,
    probe,
    read_state,
    snapshot_names,
    write_model,
    write_model_hdf5,
    write_snapshot,
    write_state,
    write_state_hdf5,
)
from netdef.weights import read_weights

SOLVERS = ["sgd_fixed", "adadelta"]


def params_of(path: Path) -> dict[int, list[Array]]:
    return {
        index: [blob.data.reshape(blob.shape) for blob in layer.blobs]
        for index, layer in enumerate(read_weights(path))
    }


def small_net() -> pb.NetParameter:
    net = pb.NetParameter(name="small")
    net.layer.add(name="data", type="Input", top=["data"])
    net.layer.add(name="fc", type="InnerProduct", bottom=["data"], top=["fc"], phase=pb.TEST)
    return net


def rewrite_model(path: Path, out: Path) -> None:
    write_model(out, pb.NetParameter.FromString(path.read_bytes()), params_of(path))


# --- the same bytes as Caffe ----------------------------------------------------------------------


@pytest.mark.parametrize("name", SOLVERS)
def test_a_model_is_written_byte_for_byte_as_by_caffe(
    golden: Path, tmp_path: Path, name: str
) -> None:
    source = golden / "solvers" / f"{name}.caffemodel"
    rewrite_model(source, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("name", SOLVERS)
def test_a_state_is_written_byte_for_byte_as_by_caffe(
    golden: Path, tmp_path: Path, name: str
) -> None:
    source = golden / "solvers" / f"{name}.solverstate"
    write_state(tmp_path / "out", read_state(source))
    assert (tmp_path / "out").read_bytes() == source.read_bytes()


def test_all_snapshots_of_caffe_are_written_byte_for_byte(shared: Path, tmp_path: Path) -> None:
    reference, out = shared / "reference", tmp_path / "out"
    for folder in ("solvers", "lenet"):
        for source in (reference / folder).glob("*.caffemodel"):
            rewrite_model(source, out)
            assert out.read_bytes() == source.read_bytes(), source
        for source in (reference / folder).glob("*.solverstate"):
            write_state(out, read_state(source))
            assert out.read_bytes() == source.read_bytes(), source


def test_the_state_of_caffe(golden: Path) -> None:
    state = read_state(golden / "solvers" / "sgd_fixed.solverstate")
    assert (state.iteration, state.learned_net) == (3, "snap_iter_3.caffemodel")
    assert state.current_step == 0
    assert [values.shape for values in state.history] == [(4, 3, 3, 3), (4,), (5, 64), (5,)]
    assert state.random_seed is None
    assert state.forward_passes is None
    assert state.cursors == []
    path = golden / "solvers" / "sgd_fixed.solverstate"
    for values, blob in zip(
        state.history, pb.SolverState.FromString(path.read_bytes()).history, strict=True
    ):
        np.testing.assert_array_equal(values.reshape(-1), np.array(blob.data, np.float32))


# --- the model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_with_gradients(tmp_path: Path, dtype: type) -> None:
    random = np.random.default_rng(0)
    data = [random.normal(size=shape).astype(dtype) for shape in ((3, 2), (3,))]
    diff = [random.normal(size=shape).astype(dtype) for shape in ((3, 2), (3,))]
    path = tmp_path / "m.caffemodel"
    write_model(path, small_net(), {1: data}, {1: diff})
    net = pb.NetParameter.FromString(path.read_bytes())
    double = dtype is np.float64
    for index, blob in enumerate(net.layer[1].blobs):
        assert tuple(blob.shape.dim) == data[index].shape
        values = blob.double_data if double else blob.data
        gradients = blob.double_diff if double else blob.diff
        np.testing.assert_array_equal(np.array(values, dtype), data[index].reshape(-1))
        np.testing.assert_array_equal(np.array(gradients, dtype), diff[index].reshape(-1))
        assert len(blob.data if double else blob.double_data) == 0
    fc = read_weights(path)[1]
    for index, weight in enumerate(fc.blobs):
        assert weight.data.dtype == dtype
        np.testing.assert_array_equal(weight.data, data[index].reshape(-1))
        np.testing.assert_array_equal(weight.diff, diff[index].reshape(-1))


def test_arrays_of_every_layout_and_size(tmp_path: Path) -> None:
    arrays = [
        np.arange(12, dtype=np.float32).reshape(3, 4).T,
        np.arange(12, dtype=np.float32)[::2],
        np.array(7, np.float32),
        np.empty((0, 5), np.float32),
    ]
    path = tmp_path / "m.caffemodel"
    write_model(path, small_net(), {1: arrays})
    weights = read_weights(path)[1].blobs
    for weight, array in zip(weights, arrays, strict=True):
        assert weight.shape == array.shape
        np.testing.assert_array_equal(weight.data.reshape(weight.shape), array)


def test_only_what_caffe_writes_of_a_net_is_written(tmp_path: Path) -> None:
    net = small_net()
    net.debug_info = True
    net.state.phase = pb.TRAIN
    net.layer[0].origin = 4
    net.layer[1].blobs.add(data=[1, 2, 3])
    path = tmp_path / "m.caffemodel"
    before = net.SerializeToString()
    write_model(path, net, {1: [np.zeros(2, np.float32)]})
    assert net.SerializeToString() == before

    written = pb.NetParameter.FromString(path.read_bytes())
    expected = small_net()
    expected.layer[0].phase = pb.TRAIN
    expected.layer[1].blobs.add(data=[0, 0]).shape.dim.append(2)
    assert written == expected


# --- the state ------------------------------------------------------------------------------------


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = State(
        iteration=70_000,
        learned_net="models/m_iter_70000.caffemodel",
        history=[np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(4)],
        current_step=2,
        random_seed=-1,
        forward_passes=140_001,
        cursors=[Cursor(0, "train", 4_480_000), Cursor(1, "test", 1 << 40)],
    )
    path = tmp_path / "m.solverstate"
    write_state(path, state)
    found = read_state(path)
    for name in ("iteration", "learned_net", "current_step", "random_seed", "forward_passes"):
        assert getattr(found, name) == getattr(state, name)
    assert found.cursors == state.cursors
    for a, b in zip(found.history, state.history, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)

    message = pb.SolverState.FromString(path.read_bytes())
    assert (message.iter, message.random_seed, message.cursor[1].layer) == (70_000, -1, "test")


def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"mod\xe8le.caffemodel")
    write_state(tmp_path / "s", State(1, learned_net=name))
    assert read_state(tmp_path / "s").learned_net == name


def test_fields_of_forks_in_a_state_are_stepped_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_state(path, State(5, current_step=1))
    with path.open("ab") as file:
        file.write(b"\x2d\x00\x00\x80\x3f\x30\x07")  # minimum_loss: 1, iter_last_event: 7
    assert read_state(path).current_step == 1


def test_a_caffemodel_is_recognised(golden: Path) -> None:
    with pytest.raises(WeightsError, match=r"is a \.caffemodel, not a \.solverstate") as caught:
        read_state(golden / "solvers" / "sgd_fixed.caffemodel")
    assert "--weights" in caught.value.diagnostics[0].hint


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"iter: 5\n", "is text"),
        (b"\x89HDF\r\n\x1a\n", "cannot be read"),
        (b"\x12\x01m", "holds no iteration"),
        (b"\x08" + b"\xff" * 9 + b"\x01" + b"\x12\x01m", "iteration is -1"),
        (b"\x08\x05\x12\x01m\x1a\x7f\x2a", "claims 127 bytes where 1 are left"),
        (b"\x08\x05\x12\x01m\x1a\x05\x3a\x03\x0a\x01\x05", "5, which takes 5 numbers"),
    ],
)
def test_a_damaged_state_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "s.solverstate"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=said):
        read_state(path)


def test_whatever_is_done_to_a_state_is_read_or_refused(golden: Path, tmp_path: Path) -> None:
    whole = (golden / "solvers" / "adadelta.solverstate").read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "s.solverstate"
    for trial in range(300):
        content = bytearray(whole[: random.integers(len(whole))] if trial % 3 == 0 else whole)
        for _ in range(trial % 4):
            position = int(random.integers(max(1, len(content))))
            content[position : position + 1] = random.bytes(1)
        path.write_bytes(content)
        with contextlib.suppress(WeightsError):
            assert read_state(path).iteration >= 0


# --- the HDF5 form --------------------------------------------------------------------------------


def contents(path: Path) -> dict[str, Any]:
    """Everything in an HDF5 file: for a dataset, how it is stored and what it holds."""
    found: dict[str, Any] = {}

    def visit(name: str, part: Any) -> None:
        found[name] = None
        if isinstance(part, h5py.Dataset):
            kind = part.id.get_type()
            layout = part.id.get_create_plist().get_layout()
            found[name] = (part.shape, kind.encode(), layout, part[()].tolist())

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def test_an_hdf5_state_is_written_as_by_caffe(golden: Path, tmp_path: Path) -> None:
    source = golden / "solvers" / "adam.solverstate.h5"
    state = read_state(source)
    assert (state.iteration, state.current_step) == (4, 0)
    assert state.learned_net == "snap_iter_4.caffemodel.h5"
    assert [values.shape for values in state.history] == [(4, 3, 3, 3), (4,), (5, 64), (5,)] * 2
    assert (state.random_seed, state.forward_passes, state.cursors) == (None, None, [])
    write_state_hdf5(tmp_path / "out", state)
    assert contents(tmp_path / "out") == contents(source)


def test_an_hdf5_model_is_written_as_by_caffe(golden: Path, tmp_path: Path) -> None:
    source = golden / "solvers" / "adam.caffemodel.h5"
    net, params = pb.NetParameter(), params_of(source)
    for layer in read_weights(source):
        net.layer.add(name=layer.name)
    write_model_hdf5(tmp_path / "out", net, params)
    assert contents(tmp_path / "out") == contents(source)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_hdf5_model_with_gradients_and_shared_parameters(tmp_path: Path, dtype: type) -> None:
    """As in Caffe, the second of two layers has the gradient, but not the values."""
    weight, gradient = np.arange(6, dtype=dtype).reshape(2, 3), np.ones((2, 3), dtype)
    net = pb.NetParameter()
    for name in ("a", "in/b", "in/c"):
        net.layer.add(name=name)
    params = {0: [weight], 1: [weight.reshape(3, 2), weight[0]], 2: [weight[0, :0], weight[0, :0]]}
    diffs = {0: [gradient], 1: [gradient.reshape(3, 2), gradient[0]], 2: params[2]}
    path = tmp_path / "m.caffemodel.h5"
    write_model_hdf5(path, net, params, diffs)
    with h5py.File(path) as file:
        names: list[str] = []
        file.visit(names.append)
    expected = ["data/a/0", "data/in/c/0", "data/in/c/1"]
    expected += [f"diff/{name}" for name in ("a/0", "in/b/0", "in/b/1", "in/c/0", "in/c/1")]
    assert [name for name in names if name[-1].isdecimal()] == expected
    assert "data/in/b" in names
    a, b, c = read_weights(path)
    assert a.blobs[0].data.dtype == dtype
    np.testing.assert_array_equal(a.blobs[0].data, np.arange(6))
    np.testing.assert_array_equal(a.blobs[0].diff, np.ones(6))
    assert (b.name, b.blobs, b.indices) == ("in/b", [], [])
    assert [blob.shape for blob in c.blobs] == [(0,), (0,)]


def test_an_hdf5_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = State(
        iteration=70_000,
        learned_net=os.fsdecode(b"mod\xe8le.caffemodel.h5"),
        history=[np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(4), np.ones(())],
        current_step=2,
        random_seed=-1,
        forward_passes=140_001,
        cursors=[Cursor(0, "träin/a", 4_480_000), Cursor(1, "", 1 << 40)],
    )
    path = tmp_path / "m.solverstate.h5"
    write_state_hdf5(path, state)
    found = read_state(path)
    for name in ("iteration", "learned_net", "current_step", "random_seed", "forward_passes"):
        assert getattr(found, name) == getattr(state, name)
    assert found.cursors == state.cursors
    for a, b in zip(found.history, state.history, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("datasets", "said"),
    [
        ({"data": None}, "is a .caffemodel, not a .solverstate"),
        ({"x": [1]}, 'is an HDF5 file without "iter"'),
        ({"iter": [-1]}, "cannot be read at /iter: it is -1"),
        ({"iter": [1 << 40]}, "cannot be read at /iter: it is 1099511627776"),
        ({"iter": [1, 2]}, "at /iter: it holds 2 numbers instead of one"),
        ({"iter": [1.5]}, "at /iter: it holds no integers"),
        ({"iter": None}, "at /iter: it is a group"),
        ({"iter": [1], "learned_net": [1]}, "at /learned_net: it holds no text"),
        ({"iter": [1], "current_step": [-3]}, "at /current_step: it is -3"),
        ({"iter": [1], "history/1": [1.0]}, "at /history/0: there is no dataset of this name"),
        ({"iter": [1], "history/0/0": [1.0]}, "at /history/0: there is no dataset of this name"),
        ({"iter": [1], "history": [1.0]}, "at /history: it is a dataset, not a group"),
        ({"iter": [1], "history/0": [b"a"]}, "at /history/0: it holds texts"),
        ({"iter": [1], "cursors/0/net": [0]}, 'at /cursors/0: there is no dataset "layer"'),
        ({"iter": [1], "cursors/0/net": [-1]}, "at /cursors/0/net: it is -1"),
    ],
)
def test_an_hdf5_state_that_is_wrong(tmp_path: Path, datasets: Any, said: str) -> None:
    path = tmp_path / "s.solverstate.h5"
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file.create_group(name) if values is None else file.create_dataset(name, data=values)
    with pytest.raises(WeightsError, match=said):
        read_state(path)


def test_an_hdf5_state_whose_names_are_out_of_order(tmp_path: Path) -> None:
    """HDF5 then lists a name that it does not find."""
    path = tmp_path / "s.solverstate.h5"
    with h5py.File(path, "w") as file:
        for name in ("b", "cccccccc", "iter"):
            file[name] = [1]
    path.write_bytes(path.read_bytes().replace(b"cccccccc", b"xxxxxxxx"))
    with pytest.raises(WeightsError, match="lists a name that it does not find"):
        read_state(path)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["fc", "fc"], 'HDF5 cannot hold two layers called "fc"'),
        (["fc", ""], 'HDF5 cannot hold a layer called ""'),
        (["fc", "a//b"], 'HDF5 cannot hold a layer called "a//b"'),
        (["fc", "/a"], 'HDF5 cannot hold a layer called "/a"'),
        (["fc", "a/."], 'HDF5 cannot hold a layer called "a/."'),
        (["fc", "fc/0"], 'in HDF5 layer "fc/0" would stand where layer "fc" has a blob'),
        (["fc", "fc/0/x"], 'in HDF5 layer "fc/0/x" would stand where layer "fc" has a blob'),
        (["fc", "fc/1", "fc/x", "x/fc/0", ".a"], ""),
    ],
)
def test_names_that_hdf5_cannot_hold(tmp_path: Path, names: list[str], said: str) -> None:
    net = pb.NetParameter()
    for name in names:
        net.layer.add(name=name)
    params = {0: [np.ones(2, np.float32)]}
    path = tmp_path / "m.h5"
    if said:
        with pytest.raises(OutputError) as caught:
            write_model_hdf5(path, net, params)
        assert caught.value.diagnostics[0].message == f"cannot write {path}: {said}"
        assert os.listdir(tmp_path) == []
    else:
        write_model_hdf5(path, net, params)
        assert {layer.name for layer in read_weights(path)} == set(names)


def test_a_snapshot_in_hdf5(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    model, state = write_snapshot(
        f"{tmp_path}/m",
        small_net(),
        {1: [np.ones(3, np.float32)]},
        State(7),
        before=lambda *of: told.append(of),
        as_hdf5=True,
    )
    assert (model, state) == snapshot_names(f"{tmp_path}/m", 7, as_hdf5=True)
    assert (model, state) == (
        f"{tmp_path}/m_iter_7.caffemodel.h5",
        f"{tmp_path}/m_iter_7.solverstate.h5",
    )
    assert told == [(model, "model"), (state, "state")]
    assert find_learned_net(read_state(state), state) == model
    assert [layer.name for layer in read_weights(model)] == ["data", "fc"]


# --- names and places -----------------------------------------------------------------------------


def test_names() -> None:
    assert snapshot_names("models/lenet", 500) == (
        "models/lenet_iter_500.caffemodel",
        "models/lenet_iter_500.solverstate",
    )


def test_the_weights_of_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "moved").mkdir()
    state = State(1, learned_net="old/m.caffemodel")
    with pytest.raises(WeightsError, match=r'no "old/m.caffemodel" or "moved/m.caffemodel"'):
        find_learned_net(state, "moved/m.solverstate")
    (tmp_path / "moved" / "m.caffemodel").touch()
    assert find_learned_net(state, "moved/m.solverstate") == "moved/m.caffemodel"
    windows = State(1, learned_net=r"C:\nets\m.caffemodel")
    assert find_learned_net(windows, "moved/m.solverstate") == "moved/m.caffemodel"
    (tmp_path / "old" / "m.caffemodel").touch()
    assert find_learned_net(state, "moved/m.solverstate") == "old/m.caffemodel"
    with pytest.raises(WeightsError, match="does not name"):
        find_learned_net(State(1), "moved/m.solverstate")


def test_probing_the_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe(f"{tmp_path}/lenet")
    monkeypatch.chdir(tmp_path)
    probe("lenet")
    assert os.listdir(tmp_path) == []
    where = Location("solver.prototxt", 9, 18)
    with pytest.raises(OutputError, match="there is no folder") as caught:
        probe(f"{tmp_path}/missing/lenet", location=where)
    assert caught.value.diagnostics[0].location == where
    assert str(tmp_path) in caught.value.diagnostics[0].hint


# --- whatever happens -----------------------------------------------------------------------------


def test_a_full_disk_leaves_the_snapshot_before(tmp_path: Path) -> None:
    net, params = small_net(), {1: [np.ones(100_000, np.float32)]}
    state = State(1, history=params[1])
    model_path, state_path = map(Path, write_snapshot(f"{tmp_path}/m", net, params, state))
    before = model_path.read_bytes(), state_path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OutputError, match="larger than allowed"):
            write_snapshot(f"{tmp_path}/m", net, {1: [np.zeros(100_000, np.float32)]}, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (model_path.read_bytes(), state_path.read_bytes()) == before
    assert sorted(os.listdir(tmp_path)) == ["m_iter_1.caffemodel", "m_iter_1.solverstate"]


WRITER = """
import sys
import numpy as np
from netdef.proto import netdef_pb2 as pb
from netdef.snapshot import State, write_snapshot
net = pb.NetParameter(name="big")
net.layer.add(name="fc", type="InnerProduct")
for iteration in range(100_000):
    values = [np.full(500_000, iteration, np.float32)] * 2
    state = State(iteration % 3, history=values, current_step=iteration)
    write_snapshot(sys.argv[1], net, {0: values}, state)
"""


def test_a_kill_at_any_moment_leaves_whole_files(tmp_path: Path) -> None:
    random = np.random.default_rng()
    for attempt in range(6):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        writer = subprocess.Popen([sys.executable, "-c", WRITER, f"{folder}/m"])
        try:
            while not (folder / "m_iter_0.solverstate").exists() and writer.poll() is None:
                time.sleep(0.005)
            time.sleep(random.uniform(0, 0.1))
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        assert writer.returncode == -signal.SIGKILL
        for path in folder.glob("m_iter_*.caffemodel"):
            (layer,) = read_weights(path)
            assert len(layer.blobs) == 2
            assert np.unique(np.concatenate([blob.data for blob in layer.blobs])).size == 1
        states = list(folder.glob("m_iter_*.solverstate"))
        assert states
        for path in states:
            state = read_state(path)
            assert all((values == state.current_step).all() for values in state.history)
            (layer,) = read_weights(find_learned_net(state, path))
            # The model is written first, so it is as old as its state, or newer.
            assert layer.blobs[0].data[0] >= state.current_step
