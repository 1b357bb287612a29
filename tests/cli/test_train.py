"""``netdef train``: spellings, logs, signals, kills, and what it says of mistakes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdef.data.writer import LMDBWriter
from netdef.proto import netdef_pb2 as pb
from netdef.snapshot import find_learned_net, read_state
from netdef.weights import read_weights

GLOG = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ \S+:\d+\] ")

ENDLESS = 10**9


def weights(path: str) -> dict[str, list[bytes]]:
    return {
        layer.name: [blob.data.tobytes() for blob in layer.blobs] for layer in read_weights(path)
    }


def snapshots() -> list[str]:
    return sorted(path.name for path in Path().glob("snap_*"))


# -- training --------------------------------------------------------------------------------------


def test_training_from_scratch(cli: Any) -> None:
    output = cli.succeed("train", "solver.prototxt")
    assert re.fullmatch(
        r"done after 40 iterations: loss \S+; test accuracy \S+, loss \S+\n", output
    )
    assert snapshots() == [
        f"snap_iter_{iteration}.{kind}"
        for iteration in (20, 40)
        for kind in ("caffemodel", "solverstate")
    ]


def test_a_resumed_run_equals_an_uncut_one(cli: Any) -> None:
    cli.succeed("train", "solver.prototxt")
    uncut = Path("snap_iter_40.caffemodel").read_bytes()
    Path("snap_iter_40.caffemodel").unlink()
    cli.succeed("train", "solver.prototxt", "--snapshot", "snap_iter_20.solverstate")
    assert Path("snap_iter_40.caffemodel").read_bytes() == uncut


def test_starting_from_weights(cli: Any) -> None:
    cli.succeed("train", "solver.prototxt")
    cli.solver(max_iter=0, snapshot=None, snapshot_prefix='"start"')
    cli.succeed("train", "solver.prototxt", "--weights", "snap_iter_20.caffemodel")
    assert weights("start_iter_0.caffemodel") == weights("snap_iter_20.caffemodel")
    # Of several files, later ones count more.
    both = "snap_iter_20.caffemodel, snap_iter_40.caffemodel"
    cli.succeed("train", "solver.prototxt", "--weights", both)
    assert weights("start_iter_0.caffemodel") == weights("snap_iter_40.caffemodel")


def test_a_solver_in_another_folder(cli: Any, net: str) -> None:
    os.mkdir("der Ordner é网")
    shutil.move("net.prototxt", "der Ordner é网/das Netz.prototxt")
    cli.solver(
        "der Ordner é网/solver.prototxt",
        net='"das Netz.prototxt"',
        snapshot_prefix='"der Ordner é网/snap"',
    )
    cli.succeed("train", "der Ordner é网/solver.prototxt")
    state = "der Ordner é网/snap_iter_20.solverstate"
    cli.succeed("train", "der Ordner é网/solver.prototxt", "--snapshot", state)


def test_two_runs_at_once_on_the_same_records(cli: Any) -> None:
    cli.solver("other.prototxt", snapshot_prefix='"other"')
    runs = [cli.start("train", name) for name in ("solver.prototxt", "other.prototxt")]
    assert [run.end() for run in runs] == [0, 0]
    assert weights("snap_iter_40.caffemodel") == weights("other_iter_40.caffemodel")


@pytest.mark.parametrize(
    "arguments",
    [
        ["solver.prototxt"],
        ["-solver", "solver.prototxt"],
        ["-solver=solver.prototxt"],
        ["--solver", "solver.prototxt"],
        ["--solver=solver.prototxt"],
        ["-solver=solver.prototxt", "-sigint_effect=snapshot", "-sighup_effect", "none"],
        ["--solver=solver.prototxt", "--sigint_effect=none", "--sighup-effect=stop"],
        ["-solver", "solver.prototxt", "-logtostderr=1", "-alsologtostderr", "-threads=1"],
        ["-level", "1", "-stage", "a,b", "-solver", "solver.prototxt"],
        ["-solver", "solver.prototxt", "-snapshot=snap_iter_1.solverstate"],
        ["-solver", "solver.prototxt", "-weights", "snap_iter_1.caffemodel"],
    ],
)
def test_spellings(cli: Any, arguments: list[str]) -> None:
    cli.solver(max_iter=1, test_iter=None)
    cli.succeed("train", "solver.prototxt")
    cli.solver(max_iter=2, test_iter=None)
    assert cli.succeed("train", *arguments).startswith("done after 2 iterations")


def test_the_gpu_is_ignored_aloud(cli: Any) -> None:
    cli.solver(max_iter=1, test_iter=None)
    log = cli.succeed("train", "-solver", "solver.prototxt", "-gpu", "0,1", log="caffe")
    assert "] -gpu 0,1 is ignored" in log


def test_level_and_stages_reach_the_net(cli: Any, net: str) -> None:
    staged = net.replace('name: "relu1"', 'name: "relu1" include { stage: "on" min_level: 3 }')
    cli.write("net.prototxt", staged)
    cli.solver(max_iter=1, test_iter=None)
    relu = "Creating Layer relu1"
    assert relu not in cli.succeed("train", "solver.prototxt", log="caffe")
    options = ("-level", "3", "-stage", "x, on")
    assert relu in cli.succeed("train", "solver.prototxt", *options, log="caffe")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "2"], "which solver?"),
        (["solver.prototxt", "-solver", "solver.prototxt"], "give the solver once"),
        (["solver.prototxt", "-snapshot", "a", "-weights", "b"], "not both"),
        (["solver.prototxt", "-weights", ","], "--weights names no file"),
        (["solver.prototxt", "--threads", "0"], "'--threads'"),
        (["solver.prototxt", "-sigint_effect", "dance"], "'dance' is not one of"),
        (["solver.prototxt", "-iterations", "5"], "No such option '-iterations'"),
    ],
)
def test_usage(cli: Any, arguments: list[str], message: str) -> None:
    assert message in cli.mistake("train", *arguments, status=2)


# -- logs ------------------------------------------------------------------------------------------


def test_the_log_is_the_one_that_scripts_parse(cli: Any) -> None:
    log = cli.succeed("train", "solver.prototxt", log="caffe")
    dumped = False  # a definition follows its headline without prefixes
    for line in log.splitlines():
        if GLOG.match(line):
            dumped = line.endswith("parameters: ")
        else:
            assert dumped, line
    # The patterns of Caffe's own tools/extra/parse_log.py and of many scripts like it.
    assert re.findall(r"Iteration (\d+), Testing net \(#0\)", log) == ["0", "20", "40"]
    assert re.findall(r"Iteration (\d+) \(.*iter/s.*\), loss = [\d.e-]+", log) == [
        "0",
        "10",
        "20",
        "30",
    ]
    assert re.findall(r"Iteration (\d+), lr = ([\d.]+)", log) == [
        (str(iteration), "0.05") for iteration in (0, 10, 20, 30)
    ]
    outputs = re.findall(r"(Train|Test) net output #(\d+): (\S+) = ([.\deE+-]+)", log)
    assert [(net, index, name) for net, index, name, _ in outputs].count(
        ("Test", "0", "accuracy")
    ) == 3
    assert [name for net, _, name, _ in outputs if net == "Train"] == ["loss"] * 4
    assert re.search(r"Iteration 40, loss = [\d.e-]+\n", log)
    assert log.endswith("] Optimization Done.\n")


def test_a_log_of_json(cli: Any) -> None:
    log = cli.succeed("train", "solver.prototxt", log="json")
    events = [json.loads(line) for line in log.splitlines()]
    assert [event["iteration"] for event in events if event["type"] == "iteration_done"] == list(
        range(40)
    )
    assert events[-1]["type"] == "optimization_done"


def test_a_pipe_gets_the_log_of_caffe(cli: Any) -> None:
    done = cli.run("train", "solver.prototxt")
    assert GLOG.match(done.stderr)
    assert "\x1b" not in done.stderr
    assert done.stdout == ""


def test_a_display_of_0_is_silent(cli: Any) -> None:
    cli.solver(display=0)
    log = cli.succeed("train", "solver.prototxt", log="caffe")
    assert "iter/s" not in log
    assert ", lr = " not in log


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, words: list[str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self.process = subprocess.Popen(
            words,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "OMP_WAIT_POLICY": "passive"},
        )
        os.close(theirs)
        self.shown = b""

    def read_until(self, text: bytes) -> None:
        while text not in self.shown:
            assert self._read(), self.shown

    def end(self) -> int:
        while self._read():
            pass
        os.close(self._ours)
        return self.process.wait()

    def _read(self) -> bool:
        # Linux reports the end of a terminal as an error.
        with contextlib.suppress(OSError):
            more = os.read(self._ours, 1 << 16)
            self.shown += more
            return bool(more)
        return False

    def check_cursor(self) -> None:
        """The cursor was hidden, and is shown again."""
        hide, show = b"\x1b[?25l", b"\x1b[?25h"
        assert hide in self.shown
        assert self.shown.rindex(show) > self.shown.rindex(hide)


def test_a_terminal_gets_progress(cli: Any) -> None:
    terminal = Terminal(cli.words("train", "solver.prototxt"))
    assert terminal.end() == 0
    terminal.check_cursor()
    assert b"iteration 20: test accuracy" in terminal.shown
    assert b"done after 40 iterations" in terminal.shown
    assert not GLOG.search(terminal.shown.decode())
    # The last thing to happen is that the progress line is erased.
    assert terminal.shown.endswith(b"\x1b[2K")


@pytest.mark.parametrize("presses", [1, 2])
def test_a_terminal_is_tidy_after_an_interrupt(cli: Any, presses: int) -> None:
    cli.solver(max_iter=ENDLESS)
    terminal = Terminal(cli.words("train", "solver.prototxt"))
    terminal.read_until(b"iteration 20: test")
    while terminal.process.poll() is None:
        terminal.process.send_signal(signal.SIGINT)
        if presses == 1:
            break
        time.sleep(0.001)
    assert terminal.end() in (0, -signal.SIGINT)
    terminal.check_cursor()


# -- signals ---------------------------------------------------------------------------------------


def test_an_interrupt_stops_with_a_snapshot_to_resume_from(cli: Any) -> None:
    cli.solver("uncut.prototxt", max_iter=3000, snapshot=0, display=100, snapshot_prefix='"uncut"')
    cli.succeed("train", "uncut.prototxt")
    cli.solver(max_iter=3000, snapshot=0, display=100)
    running = cli.start("train", "solver.prototxt")
    running.wait_for(r"Iteration 100 \(")
    running.send(signal.SIGINT)
    assert running.end() == 0
    assert re.search(r"Optimization stopped early\.\n.* Optimization Done\.\n$", running.log)
    model, state = snapshots()
    assert 100 < read_state(state).iteration < 3000
    cli.succeed("train", "solver.prototxt", "--snapshot", state)
    resumed = Path("snap_iter_3000.caffemodel").read_bytes()
    assert resumed == Path("uncut_iter_3000.caffemodel").read_bytes()
    assert model.replace("caffemodel", "solverstate") == state


def test_a_hangup_makes_a_snapshot_and_goes_on(cli: Any) -> None:
    cli.solver(max_iter=ENDLESS, snapshot=0)
    running = cli.start("train", "solver.prototxt")
    running.wait_for(r"Iteration 10 \(")
    running.send(signal.SIGHUP)
    running.wait_for("Snapshotting solver state")
    running.send(signal.SIGHUP)
    running.wait_for("Snapshotting solver state", times=2)
    running.send(signal.SIGINT)
    assert running.end() == 0
    assert len(snapshots()) == 6


def test_effects_other_than_the_usual(cli: Any) -> None:
    cli.solver(max_iter=ENDLESS, snapshot=0)
    running = cli.start(
        "train", "solver.prototxt", "-sigint_effect=snapshot", "-sighup_effect=stop"
    )
    running.wait_for(r"Iteration 10 \(")
    for count in (1, 2):
        running.send(signal.SIGINT)
        running.wait_for("Snapshotting solver state", times=count)
        running.wait_for(r"iter/s", times=len(re.findall("iter/s", running.log)) + 2)
    running.send(signal.SIGHUP)
    assert running.end() == 0
    assert "Optimization stopped early." in running.log


def test_signals_without_effect(cli: Any) -> None:
    cli.solver(max_iter=2000, snapshot=0, display=100)
    running = cli.start("train", "solver.prototxt", "-sigint_effect=none", "-sighup_effect=none")
    running.wait_for(r"Iteration 0 \(")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGINT, signal.SIGINT):
        running.send(number)
        time.sleep(0.01)
    assert running.end() == 0
    assert snapshots() == ["snap_iter_2000.caffemodel", "snap_iter_2000.solverstate"]


def test_an_interrupt_during_a_test(cli: Any) -> None:
    cli.solver(test_iter=ENDLESS, max_iter=ENDLESS, snapshot=0)
    running = cli.start("train", "solver.prototxt")
    running.wait_for("Testing net")
    time.sleep(0.1)
    running.send(signal.SIGINT)
    assert running.end() == 0
    assert re.search(r"Test interrupted\.\n(.*\n)*.*Optimization stopped early\.\n", running.log)
    assert snapshots() == ["snap_iter_0.caffemodel", "snap_iter_0.solverstate"]


def test_a_second_interrupt_ends_even_a_compilation(cli: Any, tmp_path: Path) -> None:
    cli.solver(snapshot=0)
    running = cli.start("train", "solver.prototxt", env={"NETDEF_CACHE_DIR": str(tmp_path)})
    # Behind this line the first forward pass begins, and with it the compilation, which takes
    # seconds; the solver asks for signals once more before it.
    running.wait_for("Iteration 0, Testing net")
    time.sleep(0.3)
    running.insist(signal.SIGINT)
    assert running.end() == -signal.SIGINT
    assert "stopped early" not in running.log
    assert snapshots() == []


def test_a_second_interrupt_ends_even_a_big_snapshot(cli: Any, net: str) -> None:
    cli.write("net.prototxt", net.replace("num_output: 16", "num_output: 8000"))
    cli.solver(max_iter=ENDLESS, snapshot=1, test_iter=None)
    running = cli.start("train", "solver.prototxt")
    running.wait_for("Snapshotting to binary proto file snap_iter_2.caffemodel")
    running.insist(signal.SIGINT)
    assert running.end() == -signal.SIGINT
    assert "stopped early" not in running.log
    for path in Path().glob("snap_*.solverstate"):
        assert len(read_weights(find_learned_net(read_state(path), path))) == 5
    assert read_state("snap_iter_1.solverstate").iteration == 1


# -- kills and full disks --------------------------------------------------------------------------


def test_a_kill_at_any_moment_leaves_a_snapshot_to_resume_from(cli: Any) -> None:
    cli.solver(max_iter=ENDLESS, snapshot=1, display=0, test_iter=None)
    moments = random.Random(0)
    resume: tuple[str, ...] = ()
    reached = 0
    for _ in range(6):
        running = cli.start("train", "solver.prototxt", *resume)
        running.wait_for("Snapshotting solver state", times=3)
        time.sleep(moments.uniform(0, 0.02))
        running.send(signal.SIGKILL)
        assert running.end() == -signal.SIGKILL
        iterations = []
        for path in Path().glob("snap_*.solverstate"):
            state = read_state(path)
            assert len(read_weights(find_learned_net(state, path))) == 5
            iterations.append(state.iteration)
        assert max(iterations) > reached
        reached = max(iterations)
        resume = ("--snapshot", f"snap_iter_{reached}.solverstate")
    # Cut so often, the run is still the one it would have been.
    cut = Path(f"snap_iter_{reached}.caffemodel").read_bytes()
    cli.solver("uncut.prototxt", max_iter=reached, snapshot=0, test_iter=None)
    cli.succeed("train", "uncut.prototxt")
    assert Path(f"snap_iter_{reached}.caffemodel").read_bytes() == cut


def test_a_full_disk_ends_the_run_and_keeps_the_last_snapshot(cli: Any) -> None:
    cli.succeed("train", "solver.prototxt")
    before = {name: Path(name).read_bytes() for name in snapshots()}
    cli.solver(max_iter=60)

    def limit() -> None:
        # A file system without room for another file of this size.
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    resume = ("--snapshot", "snap_iter_40.solverstate", "--log-format", "quiet")
    done = cli.run("train", "solver.prototxt", *resume, preexec_fn=limit)
    assert done.returncode == 1
    assert done.stderr.startswith("error[E501]: cannot write snap_iter_60.caffemodel: ")
    assert done.stderr.count("error[") == 1
    assert {name: Path(name).read_bytes() for name in os.listdir() if "snap" in name} == before


def bound_by_permissions(words: list[str]) -> list[str]:
    """``words``, run so that permissions bind root, too; skips the test where that cannot be."""
    if os.geteuid():
        return words
    if shutil.which("setpriv") is None:
        pytest.skip("permissions do not bind root, and there is no setpriv")
    rights = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", *words]


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_that_may_not_be_written_to_is_found_at_once(cli: Any, mode: int) -> None:
    os.mkdir("locked", mode)
    cli.solver(snapshot_prefix='"locked/snap"')
    words = bound_by_permissions(cli.words("train", "solver.prototxt", "--log-format", "caffe"))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    os.chmod("locked", 0o755)
    assert done.returncode == 1
    # Nothing was trained in vain.
    assert done.stderr.startswith("error[E502]: cannot write locked/snap_iter_")
    assert "--> solver.prototxt:11:18\n" in done.stderr


# -- mistakes --------------------------------------------------------------------------------------


def records(path: str, labels: list[int]) -> str:
    """A database of 28x28 images with these labels."""
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 784), dtype=np.uint8)
    with LMDBWriter(path) as writer:
        for i, label in enumerate(labels):
            image = pb.Datum(channels=1, height=28, width=28, data=pixels[i].tobytes(), label=label)
            writer.put(b"%08d" % i, image.SerializeToString())
    return path


TRAIN_SOURCE = r'"\S+digits_train_lmdb"'
TEST_SOURCE = r'"\S+digits_test_lmdb"'


@pytest.mark.parametrize(
    ("pattern", "given", "message", "place"),
    [
        (TRAIN_SOURCE, '"absent_lmdb"', 'there is no database at "absent_lmdb"', "4:24"),
        (TRAIN_SOURCE, '"solver.prototxt"', "is a file, and a database is a folder", "4:24"),
        (TRAIN_SOURCE, '"."', "holds no database", "4:24"),
        (TEST_SOURCE, '"absent_lmdb"', 'there is no database at "absent_lmdb"', "7:24"),
        ("batch_size: 20", "batch_size: 0", "batch_size is 0, but must be at least 1", ""),
        ("batch_size: 20", "batch_size: 4000000000", "more than 2^31 - 1 values", "2:1"),
        ("num_output: 16", "", "num_output is missing", "9:3"),
        ("num_output: 16", "num_output: 0", "num_output is 0, but must be at least 1", "9:37"),
        ("num_output: 16", "num_output: -16", "-16 is out of range", "9:37"),
        ("num_output: 16", "num_output: 4000000000", "more than 2^31 - 1 values", "8:1"),
        ("num_output: 16", "num_output: 16 axis: 9", "axis is 9", "9:46"),
        ('bottom: "ip1" top: "ip2"', 'bottom: "ip7" top: "ip2"', "Unknown bottom", "11:50"),
        ('"ip1" top: "ip2"', '"ip1" top: "data"', "", "11:"),
        ('"ip1" top: "ip2"', '"ip1" top: "ip1"', "", "11:"),
        (
            '"ip2" bottom: "label" top: "loss"',
            '"ip2" bottom: "data" top: "loss"',
            "labels",
            "15:68",
        ),
        ("num_output: 10", "num_output: 5", "is not one of the 5 classes 0 to 4", ""),
        ("scale: 0.00390625", 'mean_file: "absent"', 'the mean "absent" cannot be read', "3:57"),
        ("scale: 0.00390625", 'mean_file: "."', 'the mean "." cannot be read', "3:57"),
        ("scale: 0.00390625", 'mean_file: "net.prototxt"', "is no BlobProto", "3:57"),
        ("scale: 0.00390625", 'mean_file: "color_mean"', "3 x 28 x 28", "3:57"),
        ("scale: 0.00390625", "crop_size: 40", "smaller than crop_size 40", "3:57"),
    ],
)
def test_mistakes_in_the_net(
    cli: Any, net: str, pattern: str, given: str, message: str, place: str
) -> None:
    mean = pb.BlobProto(num=1, channels=3, height=28, width=28, data=[0.0] * (3 * 784))
    Path("color_mean").write_bytes(mean.SerializeToString())
    changed = re.sub(pattern, lambda _: given, net, count=1)
    if message == "":  # the layers after it do not matter here
        changed = changed[: changed.index('layer { name: "accuracy"')]
        message = 'layer "ip2" (InnerProduct)'
    cli.write("net.prototxt", changed)
    cli.solver(test_iter=None if 'ip2"' in message else 1, snapshot=0)
    output = cli.mistake("train", "solver.prototxt")
    assert message in output
    assert f"--> net.prototxt:{place}" in output
    assert snapshots() == []


@pytest.mark.parametrize(("phase", "line"), [("train", "15"), ("test", "13")])
@pytest.mark.parametrize(("wrong", "batch"), [(10, 0), (-1, 0), (10, 3)])
def test_a_label_out_of_range(
    cli: Any, net: str, phase: str, line: str, wrong: int, batch: int
) -> None:
    labels = [i % 10 for i in range(80)]
    labels[20 * batch + 15] = wrong
    source = TRAIN_SOURCE if phase == "train" else TEST_SOURCE
    path = records("wrong_lmdb", labels)
    cli.write("net.prototxt", re.sub(source, f'"{path}"', net))
    cli.solver(test_iter=4, snapshot=2)
    output = cli.mistake("train", "solver.prototxt")
    assert f"label {wrong} (number 15 of the batch, counted from 0) is not one of the" in output
    assert f"--> net.prototxt:{line}:" in output
    # What was learned before the record was met is not lost.
    assert snapshots() == (
        ["snap_iter_2.caffemodel", "snap_iter_2.solverstate"] if phase == "train" and batch else []
    )


def test_damaged_records(cli: Any, net: str, digit_set: Path) -> None:
    whole = (digit_set / "digits_train_lmdb" / "data.mdb").read_bytes()
    os.mkdir("damaged")
    cli.write("net.prototxt", re.sub(TRAIN_SOURCE, '"damaged"', net))
    for damaged, message in {
        b"": "is empty",
        whole[:50_000]: "is cut short",
        whole[:8192] + bytes(len(whole) - 8192): "is damaged on page",
        bytes(len(whole)): "is no LMDB file, or a damaged one",
        whole[::-1]: "is no LMDB file, or a damaged one",
    }.items():
        Path("damaged/data.mdb").write_bytes(damaged)
        output = cli.mistake("train", "solver.prototxt")
        assert message in output
        assert "--> net.prototxt:4:24\n" in output


@pytest.mark.parametrize(
    ("changes", "message", "place"),
    [
        ({"net": None}, "the solver must give one train net", "solver.prototxt:1:1"),
        ({"net": '"absent"'}, 'the net "absent" does not exist', "solver.prototxt:1:6"),
        ({"net": '"solver.prototxt"'}, "a net definition is needed", "solver.prototxt:1:1"),
        ({"max_iter": None}, "the solver has no max_iter", "solver.prototxt:1:1"),
        ({"max_iter": -1}, "max_iter cannot be negative", "solver.prototxt:9:11"),
        ({"base_lr": None}, "the solver has no base_lr", "solver.prototxt:1:1"),
        ({"base_lr": "nan"}, "would be nan", "solver.prototxt:"),
        ({"lr_policy": '"fixd"'}, 'did you mean "fixed"?', "solver.prototxt:7:12"),
        ({"type": '"SDG"'}, 'unknown solver type "SDG"', "solver.prototxt:13:7"),
        ({"test_iter": 0}, "test_iter must be at least 1", "solver.prototxt:2:12"),
        ({"snapshot_prefix": '"none/snap"'}, "there is no folder", "solver.prototxt:11:18"),
        ({"snapshot_prefix": '"net.prototxt/snap"'}, "is not a folder", "solver.prototxt:11:18"),
    ],
)
def test_mistakes_in_the_solver(
    cli: Any, changes: dict[str, object], message: str, place: str
) -> None:
    cli.solver(**changes)
    output = cli.mistake("train", "solver.prototxt")
    assert message in output
    assert f"--> {place}" in output


def test_files_that_are_no_solver(cli: Any) -> None:
    assert "does not exist" in cli.mistake("train", "absent.prototxt")
    assert "a solver definition is needed" in cli.mistake("train", "net.prototxt")
    assert "no lr_policy" in cli.mistake("train", cli.write("empty.prototxt", ""), errors=2)
    os.mkfifo("pipe")
    for path in ("pipe", "/dev/zero"):
        assert "is a device or a pipe" in cli.mistake("train", path)
    with open("huge.prototxt", "wb") as huge:
        huge.truncate(100 << 20)
    assert "a prototxt of more than 64 MB is not read" in cli.mistake("train", "huge.prototxt")


def test_files_that_are_no_snapshot(cli: Any, net: str) -> None:
    cli.solver(max_iter=1)
    cli.succeed("train", "solver.prototxt")
    cli.write("net.prototxt", net.replace("num_output: 16", "num_output: 17"))
    cli.solver(snapshot_prefix='"other"', max_iter=1)
    cli.succeed("train", "solver.prototxt")
    cli.write("net.prototxt", net)
    cli.solver(max_iter=2)
    for kind, option in (("caffemodel", "--weights"), ("solverstate", "--snapshot")):
        whole = Path(f"snap_iter_1.{kind}").read_bytes()
        Path("half").write_bytes(whole[: len(whole) // 2])
        other = "solverstate" if kind == "caffemodel" else "caffemodel"
        for path, message in {
            "absent": "there is no such file",
            "half": "half is damaged at byte",
            "net.prototxt": "is text, not a",
            "/dev/zero": "it is not a regular file",
            ".": "it is a folder",
            f"snap_iter_1.{other}": f"is a .{other}, not a .{kind}",
        }.items():
            assert message in cli.mistake("train", "solver.prototxt", option, path)
    output = cli.mistake("train", "solver.prototxt", "--snapshot", "other_iter_1.solverstate")
    assert "it was written by another net or another solver type" in output
    weights_of_another = ("--weights", "other_iter_1.caffemodel")
    output = cli.mistake("train", "solver.prototxt", *weights_of_another, errors=2)
    assert 'blob 0 of layer "ip1" is 16x784 in the net but 17x784 in the file' in output
    assert "--> net.prototxt:8:1\n" in output
