"""The ImageData layer: batches of real Caffe, options, resume, and every way it can be wrong."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from netdef.errors import DataError, NetdefError
from netdef.events import Event, Warned
from netdef.layers.image_data import ImageData
from netdef.net import TEST, Net
from netdef.proto import netdef_pb2 as pb
from netdef.testing import Case, Mistake, assert_seek_continues, deliver, locate

KEY = np.uint64(77)
RNG = np.random.default_rng(0)
#: Ten pictures (height, width, channels), multiples of 4: a mean of four is exact.
IMAGES = RNG.integers(0, 64, (10, 8, 12, 3), np.uint8) * 4


def write(folder: Path, images: Any = IMAGES) -> str:
    """Images and the list of them, labelled by their number; returns the list."""
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(images):
        assert cv2.imwrite(str(folder / f"{i}.png"), image)
    path = folder / "list.txt"
    path.write_text("".join(f"{i}.png {i}\n" for i in range(len(images))))
    return str(path)


FOLDER = Path(tempfile.mkdtemp(prefix="netdef-images-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
LIST = write(FOLDER)
COMMON = f'source: "{LIST}" root_folder: "{FOLDER}/"'


def planes(images: Any) -> np.ndarray:
    return np.asarray(images, np.float64).transpose(0, 3, 1, 2)


def case(options: str, images: np.ndarray, transform: str = "", **more: Any) -> Case:
    text = f'type: "ImageData" image_data_param {{ {COMMON} {options} }}'
    labels = np.arange(len(images))
    transform = f" transform_param {{ {transform} }}"
    return Case(text + transform, [], lambda: (images, labels), **more)


#: Halves: each pixel is the mean of four.
HALVES = planes(IMAGES).reshape(10, 3, 4, 2, 6, 2).mean(axis=(3, 5))
MEAN = np.array([104, 117, 123.0]).reshape(3, 1, 1)

CASES = [
    case("batch_size: 3", planes(IMAGES[:3])),
    case("", planes(IMAGES[:1])),
    case("batch_size: 2 new_height: 4 new_width: 6", HALVES[:2]),
    case(
        "batch_size: 4",
        (planes(IMAGES[:4]) - 100)[:, :, 1:7, 3:9] * 0.25,
        "crop_size: 6 mean_value: 100 scale: 0.25",
        phase=pb.TEST,
    ),
    case(
        "batch_size: 4 new_height: 4 new_width: 6",
        (HALVES[:4] - MEAN)[:, :, 1:3, 2:4],
        "crop_size: 2 mean_value: 104 mean_value: 117 mean_value: 123",
        phase=pb.TEST,
    ),
]


def mistake(options: str, message: str, at: str, **more: Any) -> Mistake:
    text = f'type: "ImageData" image_data_param {{ source: "{LIST}" {options} }}'
    return Mistake(text, [], message, at, error=NetdefError, **more)


MISTAKES = [
    mistake("batch_size: 0", "batch_size is 0, but must be at least 1", "0"),
    mistake("new_height: 9", "new_height is given, but new_width is not", "9"),
    mistake("new_width: 8", "new_width is given, but new_height is not", "8"),
    mistake(
        "new_height: 65536 new_width: 65536",
        "images of 65536 x 65536 would have more than 2^30 pixels",
        "65536",
    ),
    mistake("", f'"0.png" (line 1 of "{LIST}") cannot be read: No such file', f'"{LIST}"'),
    mistake(f'root_folder: "{FOLDER}"', "cannot be read: No such file", f'"{FOLDER}"'),
    mistake(
        f'root_folder: "{FOLDER}/" }} transform_param {{ crop_size: 9',
        f'"{FOLDER}/0.png" (line 1 of "{LIST}") is 3 x 8 x 12, smaller than crop_size 9',
        "9",
    ),
    Mistake(
        f'type: "ImageData" top: "x" image_data_param {{ {COMMON} }}',
        [],
        "takes 2 top blobs, but 1 given",
        "layer",
    ),
    Mistake('type: "ImageData"', [], "no source is given", "layer", error=DataError),
    Mistake(
        'type: "ImageData" image_data_param { source: "gone.txt" }',
        [],
        'the list "gone.txt" cannot be read: No such file or directory',
        '"gone.txt"',
        error=DataError,
    ),
]


class Layers:
    """Makes layers and closes them when the test is over."""

    def __init__(self) -> None:
        self.made: list[ImageData] = []

    def __call__(
        self,
        options: str = "batch_size: 4",
        transform: str = "",
        source: str = LIST,
        phase: int = pb.TRAIN,
        key: int = 77,
    ) -> ImageData:
        message = pb.LayerParameter(name="d", type="ImageData", top=["data", "label"])
        text_format.Parse(options, message.image_data_param)
        message.image_data_param.source = source
        if not message.image_data_param.HasField("root_folder"):
            message.image_data_param.root_folder = f"{Path(source).parent}/"
        text_format.Parse(transform, message.transform_param)
        layer = ImageData(message, phase, locate)
        layer.key = np.uint64(key)
        self.made.append(layer)
        return layer


@pytest.fixture
def make() -> Iterator[Layers]:
    layers = Layers()
    yield layers
    for layer in layers.made:
        layer.close()
    assert not [t for t in threading.enumerate() if t.name.endswith("(ImageData)")]


def labels(layer: ImageData, batches: int) -> list[int]:
    return [int(n) for _ in range(batches) for n in deliver(layer)[1]]


def test_agrees_with_caffe(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three batches of real Caffe in phase TEST; JPEG decoders differ by at most one grey level."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").symlink_to(shared / "data" / "images")
    shutil.copy(shared / "reference" / "pipeline" / "list.txt", "list.txt")
    reference = np.load(shared / "reference" / "data" / "imagedata_resize.npz")
    net = Net.from_text(str(reference["prototxt"]), TEST)
    for i in range(3):
        net.forward()
        np.testing.assert_array_equal(net.blobs["label"].data, reference[f"batch{i}/label"])
        np.testing.assert_allclose(
            net.blobs["data"].data, reference[f"batch{i}/data"], rtol=0, atol=1
        )
    net.close()


def test_batches_go_around_without_an_event(make: Layers) -> None:
    """Caffe 1.0 logs the end of the records of Data, not of ImageData."""
    layer = make()
    events: list[Event] = []
    layer.emit = events.append
    for expected in [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]:
        data, label = deliver(layer)
        assert label.tolist() == expected
        np.testing.assert_array_equal(data, planes(IMAGES[expected]))
    assert events == []
    assert layer.records == 12
    assert layer.size == 10


def test_grey_images(make: Layers, tmp_path: Path) -> None:
    """Made grey, and grey ones made three channels; the weights are those of ITU-R BT.601."""
    equal = np.repeat(IMAGES[:2, :, :, :1], 3, axis=3)
    source = write(tmp_path / "equal", equal)
    data, _ = deliver(make("batch_size: 2 is_color: false", source=source))
    np.testing.assert_array_equal(data, planes(equal)[:, :1])
    data, _ = deliver(make("batch_size: 2 is_color: false"))
    weights = np.array([0.114, 0.587, 0.299]).reshape(3, 1, 1)
    grey = (planes(IMAGES[:2]) * weights).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(data, grey, rtol=0, atol=1)
    source = write(tmp_path / "grey", IMAGES[:2, :, :, :1])
    data, _ = deliver(make("batch_size: 2", source=source))
    np.testing.assert_array_equal(data, planes(equal))


def test_shuffle_draws_every_image_once_per_epoch(make: Layers) -> None:
    drawn = np.array(labels(make("batch_size: 5 shuffle: true"), 6)).reshape(3, 10)
    np.testing.assert_array_equal(np.sort(drawn), np.tile(np.arange(10), (3, 1)))
    assert len({tuple(epoch) for epoch in drawn.tolist()} | {tuple(range(10))}) == 4
    other = labels(make("batch_size: 5 shuffle: true", key=78), 2)
    assert other != drawn[0].tolist()
    assert labels(make("batch_size: 1 shuffle: true"), 10) == drawn[0].tolist()


def test_shuffled_images_keep_their_labels(make: Layers) -> None:
    data, label = deliver(make("batch_size: 10 shuffle: true"))
    np.testing.assert_array_equal(data, planes(IMAGES[label.astype(int)]))


@pytest.mark.parametrize("records", [0, 4, 8, 12, 36, 1_000_000_008])
def test_seek_continues_bit_by_bit(make: Layers, records: int) -> None:
    options, transform = "batch_size: 4 rand_skip: 7 shuffle: true", "crop_size: 5 mirror: true"
    straight, resumed = make(options, transform), make(options, transform)
    deliver(resumed)
    assert_seek_continues(straight, resumed, records)


def test_a_closed_layer_starts_where_it_was(make: Layers) -> None:
    layer = make()
    assert labels(layer, 1) == [0, 1, 2, 3]
    layer.close()
    layer.close()
    assert labels(layer, 1) == [4, 5, 6, 7]


def test_rand_skip_starts_below_its_bound(make: Layers) -> None:
    """All of the 4 skips turn up in 200 keys; missing one has a chance of 4 * 0.75**200 < 1e-24."""
    seen = set()
    for key in range(200):
        layer = make("rand_skip: 4", key=key)
        seen.update(labels(layer, 1))
        layer.close()
    assert seen == {0, 1, 2, 3}


def test_each_batch_of_one_takes_the_shape_of_its_image(make: Layers, tmp_path: Path) -> None:
    images = [IMAGES[0], IMAGES[1, :5], IMAGES[2, :, :7]]
    layer = make("batch_size: 1", source=write(tmp_path / "images", images))
    assert layer.shapes() == [(1, 3, 8, 12), (1,)]
    for image in images:
        np.testing.assert_array_equal(deliver(layer)[0], planes([image]))


def test_images_of_two_sizes_in_one_batch_are_named(make: Layers, tmp_path: Path) -> None:
    source = write(tmp_path / "images", [IMAGES[0], IMAGES[1, :5]])
    with pytest.raises(DataError) as caught:
        deliver(make("batch_size: 2", source=source))
    told = str(caught.value)
    folder = tmp_path / "images"
    assert (
        f'"{folder}/1.png" (line 2 of "{source}") becomes 3 x 5 x 12, but "{folder}/0.png" '
        f'(line 1 of "{source}"), the first of its batch, becomes 3 x 8 x 12'
    ) in told
    assert "give new_height and new_width, or a crop_size" in told
    assert deliver(make("batch_size: 2 new_height: 4 new_width: 4", source=source))[0].any()


def test_a_mean_file_is_cropped_along(make: Layers, tmp_path: Path) -> None:
    mean = RNG.integers(0, 256, (3, 8, 12)).astype(np.float32)
    blob = pb.BlobProto(num=1, channels=3, height=8, width=12, data=mean.ravel())
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    transform = f'mean_file: "{tmp_path}/mean.binaryproto" crop_size: 4'
    data, _ = deliver(make("batch_size: 2", transform, phase=pb.TEST))
    np.testing.assert_array_equal(data, (planes(IMAGES[:2]) - mean)[:, :, 2:6, 4:8])


@pytest.mark.parametrize("depth", [1, 9])
def test_prefetch_is_that_of_data_param(make: Layers, depth: int) -> None:
    layer = make()
    layer.message.data_param.prefetch = depth
    assert labels(layer, 3) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    layer.message.data_param.prefetch = 0
    with pytest.raises(NetdefError, match="prefetch is 0, but must be at least 1"):
        layer.shapes()


def test_force_gray_is_said_to_have_no_effect(make: Layers) -> None:
    layer = make("batch_size: 1", "force_gray: true")
    events: list[Event] = []
    layer.emit = events.append
    assert deliver(layer)[0].shape == (1, 3, 8, 12)
    deliver(layer)
    assert [type(event) for event in events] == [Warned]


def test_an_absolute_path_goes_without_a_root(make: Layers, tmp_path: Path) -> None:
    source = tmp_path / "list.txt"
    source.write_text(f"{FOLDER}/3.png 7\n")
    data, label = deliver(make('root_folder: ""', source=str(source)))
    np.testing.assert_array_equal(data, planes(IMAGES[3:4]))
    assert label == [7]
    with pytest.raises(DataError, match=r'"/.*/3\.png" does exist: give no root_folder'):
        make('root_folder: "/images/"', source=str(source)).shapes()


def test_the_folder_without_its_slash_is_explained(make: Layers) -> None:
    with pytest.raises(DataError) as caught:
        make(f'root_folder: "{FOLDER}"').shapes()
    told = str(caught.value)
    assert f'"{FOLDER}0.png" (line 1 of "{LIST}") cannot be read' in told
    assert f'"{FOLDER}/0.png" does exist: end root_folder with a slash' in told
    [diagnostic] = caught.value.diagnostics
    assert diagnostic.location is not None
    assert diagnostic.location.source == "image_data_param/root_folder"


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_that_decode_change_nothing(
    make: Layers, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    options, transform = "batch_size: 7 shuffle: true", "crop_size: 5 mirror: true"
    monkeypatch.setenv("NETDEF_DATA_THREADS", "1")
    expected = make(options, transform)
    deliver(expected)
    monkeypatch.setenv("NETDEF_DATA_THREADS", str(threads))
    found = make(options, transform)
    found.seek(7)
    for _ in range(4):
        for a, b in zip(deliver(expected), deliver(found), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bad_image_is_named_after_the_batches_before_it(
    make: Layers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setenv("NETDEF_DATA_THREADS", str(threads))
    source = write(tmp_path / "images")
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    layer = make("batch_size: 2", source=source)
    assert layer.shapes() == [(2, 3, 8, 12), (2,)]
    assert labels(layer, 1) == [0, 1]
    for _ in range(2):
        with pytest.raises(DataError, match="is an image that cannot be decoded") as caught:
            layer.next_shapes([])
        assert f'3.png" (line 4 of "{source}")' in str(caught.value)
    layer.seek(4)
    assert labels(layer, 1) == [4, 5]


SCRIPT = """
import netdef
net = netdef.Net.from_text('''layer { name: "d" type: "ImageData" top: "x" top: "y"
  transform_param { crop_size: 8 }
  image_data_param { source: "list.txt" new_height: 500 new_width: 500 batch_size: 99 } }''')
net.forward()
"""


@pytest.mark.parametrize("ending", ["", "raise KeyboardInterrupt"])
def test_a_process_ends_well_while_images_are_decoded(ending: str) -> None:
    """A thread that is inside of OpenCV when the interpreter falls would abort the process.

    About every second time: so there are several.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT + ending],
            cwd=FOLDER,
            env={**os.environ, "NETDEF_DATA_THREADS": "4"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        _, said = process.communicate(timeout=100)
        assert process.returncode == (-signal.SIGINT if ending else 0), said
