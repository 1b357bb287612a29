"""The WindowData layer: what a batch holds, options, resume, and what can be wrong with a file.

How windows are cropped and drawn is tested in ``tests/data/test_windows.py``.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from netdef.data.windows import Cropper
from netdef.errors import DataError, NetdefError, NetError
from netdef.events import Event, Warned
from netdef.layers.window_data import WindowData
from netdef.net import Net
from netdef.proto import netdef_pb2 as pb
from netdef.testing import Case, Mistake, assert_seek_continues, deliver

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (2, 20, 30, 3), np.uint8)

#: (image, class, overlap, box): one of foreground and one of background are all that can be drawn.
ONE = [(0, 7, 0.8, (4, 3, 11, 10)), (0, 7, 0.4, (0, 0, 5, 5)), (1, 0, 0.1, (20, 9, 27, 16))]
MANY = [
    (i % 2, i + 1 if i < 10 else 0, 0.5 if i < 10 else 0.2, (i, i % 9, i + 7, i % 9 + 7))
    for i in range(20)
]


def write(name: str, windows: list[tuple[int, int, float, tuple[int, ...]]]) -> str:
    """A window file of two images."""
    lines = []
    for i in range(2):
        mine = [window for window in windows if window[0] == i]
        lines += [f"# {i}", f"{i}.png", "3", "20", "30", str(len(mine))]
        lines += [f"{label} {overlap} {' '.join(map(str, box))}" for _, label, overlap, box in mine]
    path = FOLDER / name
    path.write_text("\n".join(lines) + "\n")
    return str(path)


FOLDER = Path(tempfile.mkdtemp(prefix="netdef-windows-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
for number, image in enumerate(IMAGES):
    cv2.imwrite(str(FOLDER / f"{number}.png"), image)
ONE_FILE, MANY_FILE = write("one.txt", ONE), write("many.txt", MANY)


def cut(image: int, box: tuple[int, ...]) -> np.ndarray:
    """A window as it is."""
    x1, y1, x2, y2 = box
    return IMAGES[image, y1 : y2 + 1, x1 : x2 + 1].astype(np.float64).transpose(2, 0, 1)


FG, BG = cut(0, (4, 3, 11, 10)), cut(1, (20, 9, 27, 16))
MEAN = np.array([104, 117, 123.0]).reshape(3, 1, 1)


def case(options: str, transform: str, data: list[np.ndarray], labels: list[int]) -> Case:
    text = f'type: "WindowData" window_data_param {{ source: "{ONE_FILE}" {options} '
    text += f'bg_threshold: 0.3 root_folder: "{FOLDER}/" }} transform_param {{ {transform} }}'
    return Case(text, [], lambda: (np.array(data), np.array(labels)))


CASES = [
    case("batch_size: 4", "crop_size: 8", [BG, BG, BG, FG], [0, 0, 0, 7]),
    case("batch_size: 4 fg_fraction: 0.5", "crop_size: 8", [BG, BG, FG, FG], [0, 0, 7, 7]),
    case("batch_size: 2 fg_fraction: 1", "crop_size: 8", [FG, FG], [7, 7]),
    case("batch_size: 3 fg_fraction: 0", "crop_size: 8", [BG, BG, BG], [0, 0, 0]),
    case("batch_size: 3", "crop_size: 8", [BG, BG, BG], [0, 0, 0]),
    case("batch_size: 1 cache_images: true", "crop_size: 8", [BG], [0]),
    case(
        "batch_size: 4 scale: 0.5 crop_mode: 'warp'",
        "crop_size: 8 mean_value: 104 mean_value: 117 mean_value: 123",
        [(image - MEAN) * 0.5 for image in (BG, BG, BG, FG)],
        [0, 0, 0, 7],
    ),
    # A square is one pixel wider by Caffe's rounding.
    case(
        "batch_size: 4 crop_mode: 'square'",
        "crop_size: 9",
        [cut(1, (20, 9, 28, 17))] * 3 + [cut(0, (4, 3, 12, 11))],
        [0, 0, 0, 7],
    ),
    # Times 11 / 9 and rounded, a window of 8 becomes one of 11.
    case(
        "batch_size: 4 context_pad: 1",
        "crop_size: 11",
        [cut(1, (19, 8, 29, 18))] * 3 + [cut(0, (3, 2, 13, 12))],
        [0, 0, 0, 7],
    ),
]


def mistake(options: str, message: str, at: str, source: str = ONE_FILE) -> Mistake:
    text = f'type: "WindowData" window_data_param {{ source: "{source}" {options} }}'
    return Mistake(text, [], message, at, error=NetdefError)


CROP = "} transform_param { crop_size: 8"

MISTAKES = [
    mistake(CROP, "batch_size is missing", "window_data_param"),
    mistake("batch_size: 1", "crop_size, the side of the crops, must be given", "layer"),
    mistake(
        "batch_size: 1 } transform_param { crop_size: 4294967295",
        "a crop would be 3x4294967295x4294967295: more than 2^31 - 1 values",
        "4294967295",
    ),
    mistake(
        f"batch_size: 1 context_pad: 4 {CROP}",
        "context_pad 4 on both sides leaves nothing of crop_size 8",
        "4",
    ),
    mistake(
        f'batch_size: 1 crop_mode: "sqare" {CROP}',
        'crop_mode is "sqare", but must be "warp" or "square"',
        '"sqare"',
    ),
    mistake(
        f"batch_size: 1 fg_fraction: 1.5 {CROP}",
        "fg_fraction is 1.5, but must be from 0 to 1",
        "1.5",
    ),
    mistake(f"batch_size: 1 fg_fraction: nan {CROP}", "fg_fraction is nan", "nan"),
    mistake(
        f"batch_size: 4 fg_threshold: 0.9 {CROP}",
        f'"{ONE_FILE}" has no foreground windows, but each batch needs 1',
        f'"{ONE_FILE}"',
    ),
    mistake(f"batch_size: 1 bg_threshold: 0.3 {CROP}", '"1.png" (line 10 of "', f'"{FOLDER}'),
    mistake(f"batch_size: 1 {CROP}", 'the window file "gone.txt" cannot be', '"gone', "gone.txt"),
    mistake(f"batch_size: 1 {CROP}", "no source is given", "window_data_param", ""),
    mistake(
        f'batch_size: 1 root_folder: "{FOLDER}" {CROP}', "cannot be read: No such", f'"{FOLDER}"'
    ),
]


class Layers:
    """Makes layers and closes them when the test is over."""

    def __init__(self) -> None:
        self.made: list[WindowData] = []

    def __call__(
        self, options: str = "", transform: str = "", source: str = MANY_FILE, key: int = 77
    ) -> WindowData:
        message = pb.LayerParameter(name="d", type="WindowData", top=["data", "label"])
        batch = "" if "batch_size" in options else "batch_size: 8"
        text_format.Parse(f"{batch} bg_threshold: 0.3 {options}", message.window_data_param)
        message.window_data_param.source = source
        message.window_data_param.root_folder = f"{FOLDER}/"
        text_format.Parse(f"crop_size: 8 {transform}", message.transform_param)
        layer = WindowData(message, pb.TRAIN)
        layer.key = np.uint64(key)
        self.made.append(layer)
        return layer


@pytest.fixture
def make() -> Iterator[Layers]:
    layers = Layers()
    yield layers
    for layer in layers.made:
        layer.close()
    assert not [t for t in threading.enumerate() if t.name.endswith("(WindowData)")]


def test_every_window_is_drawn_with_its_label(make: Layers) -> None:
    """100 batches of 6 and 2 draw from 10 and 10; missing one has a chance below
    10 * 0.9**200 + 10 * 0.9**600 < 1e-8.
    """
    known = {cut(image, box).tobytes(): number for number, (image, _, _, box) in enumerate(MANY)}
    layer = make()
    seen = set()
    for _ in range(100):
        data, labels = deliver(layer)
        for item, (crop, label) in enumerate(zip(data, labels, strict=True)):
            number = known[crop.astype(np.float64).tobytes()]
            assert (number < 10) == (item >= 6)
            assert label == (number + 1 if number < 10 else 0)
            seen.add(number)
    assert seen == set(range(20))
    assert layer.records == 800


def test_mirrors_half_of_the_windows(make: Layers) -> None:
    """In both phases, as in Caffe; of 800 draws all are the same with a chance of 2**-799."""
    straight, mirrored = make(source=ONE_FILE), make("", "mirror: true", source=ONE_FILE)
    flipped = 0
    for _ in range(100):
        for a, b in zip(deliver(straight)[0], deliver(mirrored)[0], strict=True):
            if (a == b).all():
                continue
            np.testing.assert_array_equal(a[:, :, ::-1], b)
            flipped += 1
    # Within 6 standard deviations, each 14.1: a correct generator fails 1 key in 500 million.
    assert abs(flipped - 400) < 85


@pytest.mark.parametrize("records", [0, 8, 24, 1_000_000_000])
def test_seek_continues_bit_by_bit(make: Layers, records: int) -> None:
    options, transform = "context_pad: 1 fg_fraction: 0.4", "mirror: true"
    straight, resumed = make(options, transform), make(options, transform)
    deliver(resumed)
    assert_seek_continues(straight, resumed, records)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_that_decode_change_nothing(
    make: Layers, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    options, transform = "context_pad: 1 fg_fraction: 0.4", "mirror: true mean_value: 104"
    monkeypatch.setenv("NETDEF_DATA_THREADS", "1")
    expected = make(options, transform)
    deliver(expected)
    monkeypatch.setenv("NETDEF_DATA_THREADS", str(threads))
    found = make(options, transform)
    found.seek(8)
    for _ in range(6):
        for a, b in zip(deliver(expected), deliver(found), strict=True):
            np.testing.assert_array_equal(a, b)


def test_draws_are_those_of_the_key(make: Layers) -> None:
    assert (deliver(make(key=1))[0] != deliver(make(key=2))[0]).any()


def test_the_foreground_is_rounded_down_in_float32(make: Layers) -> None:
    for size, fraction, expected in [(128, 0.25, 32), (10, 0.7, 7), (7, 0.5, 3), (3, 0.99, 2)]:
        layer = make(f"batch_size: {size} fg_fraction: {fraction}")
        assert (deliver(layer)[1] > 0).sum() == expected


def test_there_is_no_number_of_records(make: Layers) -> None:
    layer = make()
    for ask in (lambda: layer.size, lambda: (layer.shapes(), layer.size)):
        with pytest.raises(NetError, match="draws its records without end") as caught:
            ask()
        assert caught.value.diagnostics[0].hint == "give --iterations"


def test_a_window_beyond_its_image_is_named(make: Layers) -> None:
    source = write("beyond.txt", [*ONE[:1], (1, 0, 0.1, (25, 9, 30, 16))])
    layer = make(source=source)
    with pytest.raises(DataError) as caught:
        layer.next_shapes([])
    assert f'the window on line 14 of "{source}" reaches beyond its image, which is 20 x 30' in str(
        caught.value
    )


def test_the_scale_is_that_of_window_data_param(make: Layers) -> None:
    """As in Caffe 1.0, which reads no other; whoever gives another is told."""
    layer = make("scale: 0.5", "scale: 3", source=ONE_FILE)
    events: list[Event] = []
    layer.emit = events.append
    data, _ = deliver(layer)
    np.testing.assert_array_equal(data[0], BG * 0.5)
    deliver(layer)
    [event] = events
    assert isinstance(event, Warned)
    assert "transform_param.scale is ignored, as in Caffe" in event.text
    layer = make("scale: 0.5", source=ONE_FILE)
    layer.emit = events.append
    deliver(layer)
    assert len(events) == 1


def test_a_net_in_double_precision(make: Layers) -> None:
    layer = make(source=ONE_FILE, transform="mean_value: 0.1")
    layer.dtype = np.float64
    data, _ = deliver(layer)
    np.testing.assert_allclose(data[0], BG - np.float64(np.float32(0.1)), rtol=1e-15)


def test_options_reach_the_crops(make: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    place = Cropper.place

    def spy(self: Cropper, box: Any, height: int, width: int, mirror: bool) -> Any:
        seen.append((self.size, self.pad, self.square, box, height, width))
        return place(self, box, height, width, mirror)

    monkeypatch.setattr(Cropper, "place", spy)
    layer = make("batch_size: 1 fg_fraction: 1 context_pad: 2 crop_mode: 'square'", source=ONE_FILE)
    deliver(layer)
    assert seen[0] == (8, 2, True, (4, 3, 11, 10), 20, 30)


def test_in_a_v1_net_the_old_fields_are_read() -> None:
    net = Net.from_text(
        f"""layers {{ name: "w" type: WINDOW_DATA top: "data" top: "label" window_data_param {{
        source: "{ONE_FILE}" root_folder: "{FOLDER}/" batch_size: 4 crop_size: 8
        bg_threshold: 0.3 }} }}"""
    )
    net.forward()
    np.testing.assert_array_equal(net.blobs["data"].data[3], FG)
    net.close()
