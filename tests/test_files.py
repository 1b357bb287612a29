"""Files appear whole or not at all."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from netdef.errors import Location, OutputError
from netdef.files import atomic_write, probe_folder

as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: what a full disk does, without filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def test_the_file_appears_at_the_end_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("size", [100, 100_000], ids=["at the end", "while writing"])
def test_a_disk_without_room_leaves_the_old_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with largest_file(50), pytest.raises(OutputError, match="larger than allowed") as caught:
        write(path, bytes(size))
    assert caught.value.diagnostics[0].code == "E501"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_device() -> None:
    with pytest.raises(OutputError, match="cannot write /dev/full: no space left on the disk"):
        write(Path("/dev/full"), b"x")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_a_device_is_written_and_not_replaced() -> None:
    write(Path("/dev/null"), b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_missing_folder_is_named_with_the_nearest_one_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        write(tmp_path / "a" / "b" / "file", b"x")
    said = caught.value.diagnostics[0]
    assert said.code == "E503"
    assert f'there is no folder "{tmp_path}/a/b"' in said.message
    assert f'below "{tmp_path}"' in said.hint


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="it is a folder"):
        write(tmp_path, b"x")


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is not a folder"):
        write(tmp_path / "file" / "other", b"x")


@as_root
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="permission denied"):
        write(tmp_path / "file", b"x")
    with pytest.raises(OutputError, match="permission denied"):
        probe_folder(tmp_path / "file")


def test_a_nul_in_the_path() -> None:
    with pytest.raises(OutputError, match="NUL"):
        write(Path("a\0b"), b"x")


def test_a_name_too_long_for_the_file_system(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="too long"):
        write(tmp_path / ("n" * 300), b"x")
    write(tmp_path / ("n" * 255), b"x")
    assert os.listdir(tmp_path) == ["n" * 255]


def test_a_symbolic_link_survives(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk" / "file")
    write(link, b"x")
    assert link.is_symlink()
    assert (tmp_path / "disk" / "file").read_bytes() == b"x"


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_an_error_of_another_file_is_not_taken_for_ours(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file"):
        (tmp_path / "missing").read_bytes()


def test_probing_leaves_nothing_and_names_where_the_path_was_given(tmp_path: Path) -> None:
    probe_folder(tmp_path / "file")
    assert os.listdir(tmp_path) == []
    where = Location("solver.prototxt", 3, 18)
    with pytest.raises(OutputError, match="no folder") as caught:
        probe_folder(tmp_path / "missing" / "file", location=where)
    assert caught.value.diagnostics[0].location == where
