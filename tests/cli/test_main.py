"""What all commands share: finding them, their spellings, their streams, how they end."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from netdef import __version__

#: A net of a few thousand layers: more text than a pipe holds.
LONG_NET = """\
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 } } }
""" + "".join(
    f'layer {{ name: "relu{i}" type: "ReLU" bottom: "x" top: "y{i}" }}\n' for i in range(2000)
)


def test_commands_are_the_files_of_their_folder(cli: Any) -> None:
    text = cli.succeed("--help")
    listed = text.partition("Commands:")[2].split("\n")
    names = [line.split()[0] for line in listed if line.strip()]
    assert names == [
        "check",
        "data",
        "layers",
        "show",
        "test",
        "time",
        "train",
        "upgrade",
        "weights",
    ]


@pytest.mark.parametrize("spelling", ["--help", "-help", "-h"])
def test_help(cli: Any, spelling: str) -> None:
    assert cli.succeed(spelling).startswith("Usage:")
    assert cli.invoke("train", spelling).exit_code == 0


@pytest.mark.parametrize("spelling", ["--version", "-version", "-V"])
def test_version(cli: Any, spelling: str) -> None:
    assert cli.succeed(spelling) == f"netdef, version {__version__}\n"


def test_help_does_not_load_the_library() -> None:
    script = (
        "import sys\n"
        "from netdef_cli.main import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print([name for name in ('numpy', 'numba', 'lmdb', 'rich') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_command_that_does_not_exist(cli: Any) -> None:
    assert 'there is no command "trian"; did you mean "train"?' in cli.mistake("trian", status=2)
    said = cli.mistake("device_query", status=2)
    assert "there are check, data, layers, show, test, time, train, upgrade" in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("-solvr", "No such option '-solvr'. Did you mean '-solver'?"),
        ("-sover=x", "No such option '-sover'. Did you mean '-solver'?"),
        ("--solvr", "No such option '--solvr'"),
        ("-z", "No such option '-z'"),
    ],
)
def test_an_option_that_does_not_exist(cli: Any, given: str, message: str) -> None:
    assert message in cli.mistake("train", given, status=2)


def test_not_enough_memory(cli: Any, net: str) -> None:
    cli.write("net.prototxt", net.replace("num_output: 16", "num_output: 2700000"))
    four_gib = 4 << 30

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (four_gib, four_gib))

    done = cli.run("train", "solver.prototxt", "--log-format", "quiet", preexec_fn=limit)
    assert done.returncode == 1
    # Parameters of one rate lie side by side: 2,700,000 x (784 + 1 + 10) + 10 of 4 bytes.
    assert "not enough memory: Unable to allocate 8.00 GiB" in done.stderr
    assert "net.prototxt:8:1" in done.stderr


# -- streams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_run_without_streams_trains_as_any_other(cli: Any, closed: str) -> None:
    cli.solver(snapshot=2, max_iter=4)
    cli.succeed("train", "solver.prototxt")
    expected = {path.name: path.read_bytes() for path in Path().glob("snap_*")}
    for path in Path().glob("snap_*"):
        path.unlink()
    line = subprocess.list2cmdline(cli.words("train", "solver.prototxt"))
    assert subprocess.run(f"{line} {closed}", shell=True, check=False).returncode == 0
    # Nothing that was meant for a stream went into a file.
    assert {path.name: path.read_bytes() for path in Path().glob("snap_*")} == expected


def test_a_full_disk_behind_the_log_does_not_end_a_run(cli: Any) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        assert cli.run("train", "solver.prototxt", stderr=full).returncode == 0
    assert Path("snap_iter_40.solverstate").exists()


def test_a_reader_that_goes_away_does_not_end_a_run(cli: Any) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        assert cli.run("train", "solver.prototxt", stderr=write).returncode == 0
    finally:
        os.close(write)
    assert Path("snap_iter_40.solverstate").exists()


def test_a_full_disk_behind_the_output(cli: Any) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = cli.run("show", "net.prototxt", stdout=full)
    assert done.returncode == 1
    assert done.stderr == (
        "error[E500]: cannot write to standard output: No space left on device\n"
    )


def test_a_reader_of_the_output_that_goes_away(cli: Any) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = cli.run("show", cli.write("long.prototxt", LONG_NET), stdout=write)
    finally:
        os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


def test_output_in_an_encoding_that_lacks_the_characters(cli: Any, net: str) -> None:
    cli.write("net.prototxt", net.replace('name: "ip1"', 'name: "网"'))
    done = cli.run("show", "net.prototxt", env={"PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 0
    assert "\n\\u7f51 " in done.stdout


def test_a_log_in_an_encoding_that_lacks_the_characters(cli: Any, net: str) -> None:
    cli.write("net.prototxt", net.replace('"tiny"', '"网"'))
    cli.solver(max_iter=1)
    done = cli.run("train", "solver.prototxt", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "] Solving \\u7f51\n" in done.stderr


# -- surroundings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["many", "0", "-1", "2.5", "²"])
def test_a_number_of_threads_that_is_none(
    cli: Any, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("NETDEF_NUM_THREADS", value)
    assert "Invalid value for '--threads'" in cli.mistake("train", "solver.prototxt", status=2)


def test_more_threads_than_the_machine_has(cli: Any) -> None:
    cli.solver(max_iter=1)
    cli.succeed("train", "solver.prototxt", "--threads", 1000)


def test_no_home_to_keep_kernels_in(cli: Any) -> None:
    cli.write("file", "")
    temporary = Path("temporary")
    temporary.mkdir()
    net = """
    layer { name: "in" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 dim: 2 } } }
    layer { name: "out" type: "ReLU" bottom: "x" top: "y" }
    """
    cli.solver(net_param="{" + net + "}", net=None, test_iter=None, max_iter=1)
    env = {
        "NETDEF_CACHE_DIR": "file",
        "XDG_CACHE_HOME": "file",
        "HOME": "file",
        "TMPDIR": str(temporary.resolve()),
    }
    done = cli.run("train", "solver.prototxt", env=env)
    assert done.returncode == 0, done.stderr
    # A folder in a place that everyone may write to is closed to others.
    (made,) = temporary.iterdir()
    assert made.stat().st_mode & 0o077 == 0
    kernels = sorted(made.rglob("*.nbc"))
    assert kernels
    # One that is open to them is not used.
    made.chmod(0o777)
    for kernel in kernels:
        kernel.unlink()
    done = cli.run("train", "solver.prototxt", env=env)
    assert done.returncode == 0, done.stderr
    assert sorted(made.rglob("*.nbc")) == []
    assert list(temporary.iterdir()) == [made]


def test_interrupted_before_there_is_anything_to_save(cli: Any, tmp_path: Path) -> None:
    # Without kernels in the cache, building the nets takes long enough to be interrupted.
    running = cli.start("train", "solver.prototxt", env={"NETDEF_CACHE_DIR": str(tmp_path)})
    running.wait_for("Compiling kernels")
    running.send(signal.SIGINT)
    assert running.end() == 130
    assert running.log.endswith("Aborted!\n")
    assert list(Path().glob("snap_*")) == []
