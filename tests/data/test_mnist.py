"""MNIST: reading its files, downloading them, and every way that can go wrong."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from netdef.data import download, mnist
from netdef.errors import DataError, OutputError

NAMES = [file.name for file in mnist.FILES]


def idx(array: np.ndarray, magic: int | None = None, count: int | None = None) -> bytes:
    """The idx file of an array of bytes, by the format's definition."""
    shape = (len(array) if count is None else count, *array.shape[1:])
    magic = 0x0800 + array.ndim if magic is None else magic
    return struct.pack(f">{1 + len(shape)}I", magic, *shape) + array.tobytes()


def small(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
    return images, rng.integers(0, 10, count).astype(np.uint8)


TRAIN, TEST = small(30, seed=1), small(20, seed=2)


@pytest.fixture
def contents() -> dict[str, bytes]:
    """A small set in MNIST's format, by name of file, not compressed."""
    return dict(zip(NAMES, map(idx, (*TRAIN, *TEST)), strict=True))


def put(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in contents.items():
        (folder / name).write_bytes(gzip.compress(data))
    return folder


def check_small(split: mnist.Split, expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(split.images, expected[0])
    np.testing.assert_array_equal(split.labels, expected[1])


# Reading.


def test_the_real_files(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "mnist"
    written = mnist.write(tmp_path, source=source)
    assert [each.records for each in written] == [60_000, 10_000]
    # The record as convert_mnist_data makes it, straight from the file's bytes.
    images = gzip.decompress((source / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((source / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    environment = lmdb.open(str(tmp_path / "mnist_test_lmdb"), readonly=True)
    with environment.begin() as transaction:
        for i, (key, value) in enumerate(transaction.cursor()):
            assert key == b"%08d" % i
            pixels = images[784 * i : 784 * (i + 1)]
            head = bytes.fromhex("0801 101c 181c 22 9006")
            assert value == head + pixels + bytes((0x28, labels[i]))
    environment.close()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "name", ["{0}-idx{1}-ubyte", "{0}.idx{1}-ubyte", "{0}-idx{1}-ubyte/{0}-idx{1}-ubyte"]
)
def test_files_go_by_several_names(
    tmp_path: Path, contents: dict[str, bytes], name: str, packed: bool
) -> None:
    for file, data in zip(mnist.FILES, contents.values(), strict=True):
        path = tmp_path / name.format(file.stem, file.dimensions)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(data) if packed else data)
    train, test = mnist.read(tmp_path, verify=False)
    check_small(train, TRAIN)
    check_small(test, TEST)


def test_a_set_that_is_not_mnist_is_told_from_it(
    tmp_path: Path, contents: dict[str, bytes]
) -> None:
    put(tmp_path, contents)
    with pytest.raises(DataError, match="not the file MNIST is known by") as caught:
        mnist.read(tmp_path)
    assert "--no-verify" in str(caught.value)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        mnist.read(tmp_path / "none")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="is a file, not a folder"):
        mnist.read(tmp_path / "file")


def test_missing_files_are_listed(tmp_path: Path, contents: dict[str, bytes]) -> None:
    put(tmp_path, contents)
    (tmp_path / NAMES[1]).unlink()
    with pytest.raises(DataError, match=rf"lacks {NAMES[1]}\n"):
        mnist.read(tmp_path)
    (tmp_path / NAMES[2]).unlink()
    (tmp_path / NAMES[3]).unlink()
    with pytest.raises(DataError, match=f"lacks {NAMES[1]}, {NAMES[2]} and {NAMES[3]}\n"):
        mnist.read(tmp_path)


WRONG = {
    "cut short": (idx(TRAIN[0])[:-1], r"promises 23520 bytes of data, it has 23519"),
    "too long": (idx(TRAIN[0]) + b"!", r"promises 23520 bytes of data, it has more"),
    "no header": (idx(TRAIN[0])[:7], r"its header ends too early"),
    "empty": (b"", r"bytes 00000803 of an idx file of images but with nothing"),
    "labels": (idx(TRAIN[1]), r"but with 00000801, those of labels"),
    "not idx": (b"<html>not found</html>", r"but with 3c68746d"),
    "floats": (idx(TRAIN[0], magic=0x0D03), r"but with 00000d03"),
    "counts differ": (idx(TRAIN[0][:29]), r"holds 29 images, but .* holds 30 labels"),
    "promises much": (idx(TRAIN[0], count=2**32 - 1), r"promises 3367254359280 bytes"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_damaged_images(tmp_path: Path, contents: dict[str, bytes], wrong: str) -> None:
    data, message = WRONG[wrong]
    put(tmp_path / "from", contents | {NAMES[0]: data})
    with pytest.raises(DataError, match=message):
        mnist.write(tmp_path / "out", source=tmp_path / "from", verify=False)
    assert not (tmp_path / "out").exists()


def test_a_label_out_of_range(tmp_path: Path, contents: dict[str, bytes]) -> None:
    labels = TRAIN[1].copy()
    labels[7] = 10
    put(tmp_path, contents | {NAMES[1]: idx(labels)})
    with pytest.raises(DataError, match=r"label 7 of .*train-labels.* is 10, not in 0\.\.9"):
        mnist.read(tmp_path, verify=False)


def test_no_images_at_all(tmp_path: Path, contents: dict[str, bytes]) -> None:
    none = {NAMES[0]: idx(TRAIN[0][:0]), NAMES[1]: idx(TRAIN[1][:0])}
    put(tmp_path, contents | none)
    with pytest.raises(DataError, match="holds no images"):
        mnist.read(tmp_path, verify=False)


def test_damaged_gzip(tmp_path: Path, contents: dict[str, bytes]) -> None:
    path = put(tmp_path, contents) / NAMES[0]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="its compressed data ends too early"):
        mnist.read(tmp_path, verify=False)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(16) + whole[middle + 16 :])
    with pytest.raises(DataError, match=r"is damaged: it does not decompress"):
        mnist.read(tmp_path, verify=False)


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, contents: dict[str, bytes]) -> None:
    bomb = contents[NAMES[0]] + bytes(200 << 20)
    put(tmp_path, contents | {NAMES[0]: bomb})
    with pytest.raises(DataError, match="it has more"):
        mnist.read(tmp_path, verify=False)


def test_a_database_in_the_way_is_found_first(tmp_path: Path) -> None:
    (tmp_path / "mnist_test_lmdb").write_text("")
    with pytest.raises(OutputError, match="mnist_test_lmdb"):
        mnist.write(tmp_path, source=tmp_path / "nowhere")


# Downloading, from servers on this machine.


@dataclass
class Mirror:
    """What a server delivers, and how it fails: ``cut`` bytes into a file it hangs up."""

    files: dict[str, bytes]
    cut: int | None = None
    ranges: bool = True
    status: int | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.removeprefix("/mnist/")
        span = request.headers.get("Range", "")
        self.asked.append((name, span))
        if self.status or name not in self.files:
            request.send_error(self.status or 404)
            return
        data = self.files[name]
        start = int(span.removeprefix("bytes=").rstrip("-")) if span and self.ranges else 0
        if start >= len(data):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.send_header("Content-Length", str(len(data) - start))
        request.end_headers()
        request.wfile.write(data[start : None if self.cut is None else start + self.cut])


Serve = Callable[..., Mirror]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A function that starts a mirror; its arguments are those of ``Mirror``."""
    monkeypatch.setenv("no_proxy", "*")
    running: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(files: dict[str, bytes], **options: Any) -> Mirror:
        mirror = Mirror(files, **options)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        running.append((server, thread))
        mirror.url = f"http://127.0.0.1:{server.server_port}/mnist/"
        return mirror

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def files(contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The small set as a mirror has it; it is what MNIST is known by for the test."""
    known = tuple(
        mnist.IdxFile(file.stem, file.dimensions, hashlib.sha256(contents[file.name]).hexdigest())
        for file in mnist.FILES
    )
    monkeypatch.setattr(mnist, "FILES", known)
    return {name: gzip.compress(data) for name, data in contents.items()}


@pytest.fixture
def dead() -> str:
    """An address nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/mnist/"


def check_download(folder: Path) -> None:
    train, test = mnist.read(folder)
    check_small(train, TRAIN)
    check_small(test, TEST)
    assert sorted(os.listdir(folder)) == sorted(NAMES)


def test_download(tmp_path: Path, serve: Serve, files: dict[str, bytes]) -> None:
    mirror = serve(files)
    seen = []
    mnist.download(tmp_path, [mirror.url], lambda *event: seen.append(event))
    check_download(tmp_path)
    assert seen[-1] == (NAMES[3], len(files[NAMES[3]]), len(files[NAMES[3]]))
    assert [name for name, _ in mirror.asked] == NAMES

    mnist.download(tmp_path, [mirror.url])
    assert len(mirror.asked) == 4, "what is there is not fetched again"
    (tmp_path / NAMES[2]).write_bytes(b"damaged since")
    mnist.download(tmp_path, [mirror.url])
    check_download(tmp_path)
    assert [name for name, _ in mirror.asked[4:]] == [NAMES[2]]


def test_a_download_goes_on_where_it_stopped(
    tmp_path: Path, serve: Serve, files: dict[str, bytes]
) -> None:
    (tmp_path / f"{NAMES[0]}.part").write_bytes(files[NAMES[0]][:1000])
    mirror = serve(files)
    mnist.download(tmp_path, [mirror.url])
    check_download(tmp_path)
    assert mirror.asked[0] == (NAMES[0], "bytes=1000-")


def test_a_lost_connection_is_taken_up_again(
    tmp_path: Path, serve: Serve, files: dict[str, bytes]
) -> None:
    half = len(files[NAMES[0]]) // 2 + 1
    mirror = serve(files, cut=half)
    mnist.download(tmp_path, [mirror.url])
    check_download(tmp_path)
    assert mirror.asked[:2] == [(NAMES[0], ""), (NAMES[0], f"bytes={half}-")]


def test_the_next_mirror_goes_on_where_one_gave_up(
    tmp_path: Path, serve: Serve, files: dict[str, bytes]
) -> None:
    poor, good = serve(files, cut=500), serve(files)
    mnist.download(tmp_path, [poor.url, good.url])
    check_download(tmp_path)
    assert good.asked[0] == (NAMES[0], f"bytes={500 * download.TRIES_PER_MIRROR}-")
    assert {name for name, _ in poor.asked} == {NAMES[0]}, "the good mirror is asked first then"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_wrong_partial_file_is_fetched_anew(
    tmp_path: Path, serve: Serve, files: dict[str, bytes], ranges: bool
) -> None:
    (tmp_path / f"{NAMES[0]}.part").write_bytes(b"?" * 100)
    mnist.download(tmp_path, [serve(files, ranges=ranges).url])
    check_download(tmp_path)


@pytest.mark.parametrize("whole", [True, False])
def test_a_partial_file_that_is_as_long_as_the_whole(
    tmp_path: Path, serve: Serve, files: dict[str, bytes], whole: bool
) -> None:
    data = files[NAMES[0]]
    (tmp_path / f"{NAMES[0]}.part").write_bytes(data if whole else b"?" * len(data))
    mnist.download(tmp_path, [serve(files).url])
    check_download(tmp_path)


def test_a_corrupted_mirror_then_a_good_one(
    tmp_path: Path, serve: Serve, files: dict[str, bytes], contents: dict[str, bytes]
) -> None:
    changed = bytearray(contents[NAMES[0]])
    changed[-1] ^= 1
    corrupted = serve(files | {NAMES[0]: gzip.compress(bytes(changed))})
    good = serve(files)
    mnist.download(tmp_path, [corrupted.url, good.url])
    check_download(tmp_path)
    assert len(corrupted.asked) == 1


def test_a_page_instead_of_the_file(tmp_path: Path, serve: Serve, files: dict[str, bytes]) -> None:
    portal = serve(dict.fromkeys(NAMES, b"<html>please log in</html>"))
    mnist.download(tmp_path, [portal.url, serve(files).url])
    check_download(tmp_path)


def test_a_mirror_that_never_ends(
    tmp_path: Path,
    serve: Serve,
    files: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mnist, "MOST_DOWNLOAD_BYTES", 1 << 20)
    endless = serve(dict.fromkeys(NAMES, bytes(8 << 20)))
    mnist.download(tmp_path, [endless.url, serve(files).url])
    check_download(tmp_path)


def test_all_mirrors_down(tmp_path: Path, serve: Serve, dead: str) -> None:
    down = serve({}, status=503)
    gone = serve({})
    with pytest.raises(DataError) as caught:
        mnist.write(tmp_path / "out", mirrors=[dead, down.url, gone.url])
    message = str(caught.value)
    assert "Connection refused" in message
    assert "HTTP 503" in message
    assert "HTTP 404" in message
    assert "--from FOLDER" in message
    assert "netdef data digits" in message
    for name in NAMES:
        assert name in message
    assert os.listdir(tmp_path / "out") == [mnist.DOWNLOADS]
    assert os.listdir(tmp_path / "out" / mnist.DOWNLOADS) == []


def test_a_mirror_must_be_on_the_web(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not the http or https address"):
        mnist.download(tmp_path / "new", ["file:///etc/"])
    assert not (tmp_path / "new").exists()


def test_downloads_need_a_folder(tmp_path: Path, dead: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not a folder"):
        mnist.write(tmp_path / "file", mirrors=[dead])
