"""MemoryData: arrays delivered in order and around, seen as they change, refused as by pycaffe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netdef.errors import DataError
from netdef.net import Net
from netdef.testing import Case, Mistake

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((6, 2, 3, 4)).astype(np.float32)
LABELS = np.arange(6, dtype=np.float32)

SHAPE = "channels: 2 height: 3 width: 4"
LAYER = f'type: "MemoryData" memory_data_param {{ batch_size: 2 {SHAPE} }}'


def case(batch_size: int, image: str, data: np.ndarray, labels: np.ndarray) -> Case:
    return Case(
        f'type: "MemoryData" memory_data_param {{ batch_size: {batch_size} {image} }}',
        [],
        lambda: (data[:batch_size], labels.reshape(-1)[:batch_size]),
        prepare=lambda layer: layer.set_arrays(data, labels),
    )


CASES = [
    case(2, SHAPE, IMAGES, LABELS),
    case(1, SHAPE, IMAGES, LABELS),
    case(6, SHAPE, IMAGES, LABELS.reshape(6, 1, 1, 1)),
    case(3, "channels: 1 height: 1 width: 1", IMAGES[:, :1, :1, :1].copy(), LABELS),
]


def mistake(options: str, message: str, at: str) -> Mistake:
    return Mistake(f'type: "MemoryData" memory_data_param {{ {options} }}', [], message, at)


MISTAKES = [
    mistake(SHAPE, "batch_size is missing", "memory_data_param"),
    mistake(f"batch_size: 0 {SHAPE}", "batch_size is 0, but must be at least 1", "0"),
    mistake(
        "batch_size: 2 channels: 0 height: 3 width: 4",
        "channels is 0, but must be at least 1",
        "0 height",
    ),
    mistake(
        "batch_size: 2 channels: 2 width: 4",
        "height is missing",
        "memory_data_param",
    ),
    mistake(
        "batch_size: 2 channels: 2 height: 3",
        "width is missing",
        "memory_data_param",
    ),
    mistake("batch_size: 65536 channels: 3 height: 256 width: 256", "more than 2^31 - 1", "layer"),
    Mistake(LAYER, [], "no data was set", "layer", error=DataError),
    Mistake(f'{LAYER} top: "x"', [], "takes 2 top blobs, but 1 given", "layer"),
]


def make(options: str = "", **more: Any) -> Net:
    text = f'layer {{ name: "d" {LAYER} top: "data" top: "label" {options} }}'
    return Net.from_text(text, **more)


def deliver(net: Net) -> list[float]:
    """The labels of the next batch, whose images must go with them."""
    net.forward()
    labels = net.blobs["label"].data
    np.testing.assert_array_equal(net.blobs["data"].data, IMAGES[labels.astype(int)])
    return labels.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batches_go_around(dtype: type[Any]) -> None:
    net = make(dtype=dtype)
    net.set_input_arrays(IMAGES, LABELS)
    assert [deliver(net) for _ in range(4)] == [[0, 1], [2, 3], [4, 5], [0, 1]]
    [layer] = net.program.sources
    assert (layer.records, layer.size) == (8, 6)


def test_setting_arrays_starts_from_the_first() -> None:
    net = make()
    net.set_input_arrays(IMAGES, LABELS)
    deliver(net)
    net.set_input_arrays(IMAGES[:4], LABELS[:4])
    assert [deliver(net) for _ in range(3)] == [[0, 1], [2, 3], [0, 1]]


@pytest.mark.parametrize(
    ("records", "expected"), [(0, 0), (3, 2), (4, 4), (10, 4), (1_000_000_000, 4)]
)
def test_seek_continues(records: int, expected: int) -> None:
    net = make()
    net.set_input_arrays(IMAGES, LABELS)
    [layer] = net.program.sources
    layer.seek(records)
    assert deliver(net) == [expected, expected + 1]
    assert layer.records == records + 2


def test_arrays_are_not_copied() -> None:
    net = make()
    data, labels = IMAGES.copy(), LABELS.reshape(6, 1, 1, 1).copy()
    net.set_input_arrays(data, labels)
    data[0] = 7
    labels[1] = 9
    net.forward()
    assert (net.blobs["data"].data[0] == 7).all()
    assert net.blobs["label"].data.tolist() == [0, 9]


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (IMAGES.tolist(), LABELS, "data must be an array of float32, not list"),
        (IMAGES.astype(np.float64), LABELS, "data must be an array of float32, not float64"),
        (IMAGES, np.arange(6), "labels must be an array of float32, not int64"),
        (IMAGES[:, :, :, ::-1], LABELS, "data must be C-contiguous"),
        (IMAGES, LABELS[::-1], "labels must be C-contiguous"),
        (IMAGES[0], LABELS, "data must be n x 2x3x4, not 2x3x4"),
        (IMAGES[:, :1].copy(), LABELS, "data must be n x 2x3x4, not 6x1x3x4"),
        (IMAGES.reshape(6, 2, 4, 3), LABELS, "data must be n x 2x3x4, not 6x2x4x3"),
        (IMAGES, LABELS[:4], "labels must be 6, or 6x1x1x1, as there is that much data, not 4"),
        (IMAGES, LABELS.reshape(6, 1), "labels must be 6, or 6x1x1x1, .*, not 6x1"),
        (IMAGES[:5], LABELS[:5], "data must be a multiple of the batch_size 2, not 5 images"),
        (IMAGES[:0], LABELS[:0], "data must be a multiple of the batch_size 2, not 0 images"),
    ],
)
def test_arrays_that_do_not_fit(data: Any, labels: Any, message: str) -> None:
    net = make()
    with pytest.raises(ValueError, match=message):
        net.set_input_arrays(data, labels)
    with pytest.raises(DataError, match=r"net\.set_input_arrays\(data, labels\)"):
        net.forward()
    with pytest.raises(DataError, match="no data was set"):
        _ = net.program.sources[0].size


def test_the_first_layer_must_be_memory_data() -> None:
    net = Net.from_text(
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 } } }'
        f'layer {{ name: "d" {LAYER} top: "data" top: "label" }}'
    )
    with pytest.raises(ValueError, match=r'as the first of the net; it is "in" \(Input\)'):
        net.set_input_arrays(IMAGES, LABELS)


def test_who_asks_for_a_transform_is_warned() -> None:
    net = make("transform_param { scale: 2 }")
    with pytest.warns(UserWarning, match="does not transform its arrays"):
        net.set_input_arrays(IMAGES, LABELS)
    assert deliver(net) == [0, 1]
