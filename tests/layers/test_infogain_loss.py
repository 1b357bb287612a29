"""InfogainLoss: H as bottom and as file, normalizations, ignored labels, axes, the prob top."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdef.blob import Shape
from netdef.errors import DataError, NetdefError
from netdef.proto import netdef_pb2 as pb
from netdef.testing import Case, Draw, Mistake, Trial, check_mistake, labels, normal, values

X, LABEL, H = (4, 5), (4,), (5, 5)
IMAGE, LABELS = (2, 5, 3, 4), (2, 1, 3, 4)


def loss(
    mode: str = "VALID", ignore: int | None = None, axis: int = 1, prob: bool = False
) -> Callable[..., Any]:
    def expected(x: Any, label: Any, matrix: Any) -> Any:
        classes = x.shape[axis]
        matrix = matrix.reshape(classes, classes)
        e = np.exp(x - x.max(axis, keepdims=True, initial=-np.inf))
        p = e / e.sum(axis, keepdims=True)
        rows = np.moveaxis(p, axis, -1).reshape(-1, classes)
        label = label.reshape(-1).astype(int)
        counted = label != ignore
        total = -(matrix[label[counted]] * np.log(np.maximum(rows[counted], 1e-20))).sum()
        outer = int(np.prod(x.shape[:axis]))
        count = {"VALID": counted.sum(), "FULL": label.size, "BATCH_SIZE": outer, "NONE": 1}
        total = total / max(1, count[mode])
        return (total, p) if prob else total

    return expected


def case(
    options: str,
    x: Shape,
    label: Shape,
    matrix: Shape,
    expected: Callable[..., Any],
    *more: float,
    axis: int = 1,
) -> Case:
    draws: list[Draw] = [normal, labels(x[axis], *more), normal]
    other = [(x[0] + 1, *x[1:]), (label[0] + 1, *label[1:]), matrix]
    text = f'type: "InfogainLoss" {options}'
    return Case(text, [x, label, matrix], expected, draws, other=other)


CASES = [
    case("", X, LABEL, H, loss()),
    case("", X, (4, 1), (1, 1, 5, 5), loss()),
    case('top: "loss" top: "prob"', IMAGE, LABELS, (25,), loss(prob=True)),
    case("infogain_loss_param { axis: 3 }", IMAGE, (2, 5, 3), (4, 4), loss(axis=3), axis=3),
    case("infogain_loss_param { axis: -2 }", IMAGE, (2, 5, 4), (3, 3), loss(axis=2), axis=2),
    # The axis is that of infogain_loss_param.
    case("softmax_param { axis: 2 }", IMAGE, (2, 3, 4), H, loss()),
    *(
        case(f"loss_param {{ normalization: {mode} }}", IMAGE, LABELS, H, loss(mode))
        for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE")
    ),
    *(
        case(
            f"loss_param {{ normalization: {mode} ignore_label: 255 }}",
            IMAGE,
            LABELS,
            H,
            loss(mode, 255),
            255,
            255,
        )
        for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE")
    ),
    case("loss_param { ignore_label: 1 }", IMAGE, LABELS, H, loss(ignore=1)),
    case("loss_weight: 0.5", (1, 3), (1,), (9,), loss()),
    case("", (0, 5), (0,), H, loss()),
    Case(
        'type: "InfogainLoss" loss_param { ignore_label: 0 }',
        [X, LABEL, H],
        lambda x, label, matrix: np.array(0.0),
        [normal, values(0), normal],
        other=[(3, 5), (3,), H],
    ),
]


def mistake(label: Draw, message: str) -> Mistake:
    text, draws = 'type: "InfogainLoss"', [normal, label, normal]
    return Mistake(text, [X, LABEL, H], message, '"x1"', draws, error=DataError)


def file_mistake(path: str | Path, message: str) -> Mistake:
    text = f'type: "InfogainLoss" infogain_loss_param {{ source: "{path}" }}'
    return Mistake(text, [X, LABEL], message, f'"{path}"', [normal, values(0)], error=NetdefError)


MISTAKES = [
    Mistake('type: "InfogainLoss"', [X], "takes 2 to 3 bottom blobs, but 1 given", "layer"),
    Mistake(
        'type: "InfogainLoss"',
        [X, LABEL],
        "the matrix H is missing: name its file, infogain_loss_param.source, or give it as third",
        "layer",
    ),
    Mistake(
        'type: "InfogainLoss" infogain_loss_param { source: "h" }',
        [X, LABEL, H],
        "H is given twice, by source and as third bottom",
        '"h"',
    ),
    Mistake(
        'type: "InfogainLoss"',
        [X, LABEL, (5, 4)],
        "H needs 5x5 values for the 5 classes of the bottom 4x5, but the third bottom is 5x4",
        '"x2"',
    ),
    Mistake(
        'type: "InfogainLoss" loss_param { normalize: true }',
        [X, LABEL, H],
        "normalize is deprecated",
        "true",
    ),
    Mistake(
        'type: "InfogainLoss"',
        [IMAGE, (2,), H],
        "Number of labels must match number of predictions: 2x5x3x4 with 5 classes on axis 1 makes "
        "24 predictions, but the labels are 2",
        '"x1"',
    ),
    Mistake(
        'type: "InfogainLoss" infogain_loss_param { axis: 2 }',
        [X, LABEL, H],
        "axis is 2, but the bottom is 4x5",
        "2",
    ),
    file_mistake("gone.binaryproto", 'the matrix H "gone.binaryproto" cannot be read: No such'),
    file_mistake("/", 'the matrix H "/" cannot be read: it is no regular file'),
    mistake(values([0, 4, 5, 1]), "label 5 (number 2 of the batch, counted from 0) is not one of"),
    mistake(values([0, -1, 0, 0]), "label -1 (number 1 of the batch"),
    mistake(values([0, 0, 0, np.nan]), "label nan (number 3 of the batch"),
]


def write(path: Path, matrix: Any, *, legacy: bool = False, double: bool = False) -> Path:
    blob = pb.BlobProto()
    (blob.double_data if double else blob.data).extend(np.ravel(matrix).tolist())
    if legacy:
        blob.num = blob.channels = 1
        blob.height, blob.width = matrix.shape
    else:
        blob.shape.dim.extend(matrix.shape)
    path.write_bytes(blob.SerializeToString())
    return path


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_matrix_in_a_file_is_one_in_a_bottom(tmp_path: Path, legacy: bool, double: bool) -> None:
    with Trial(CASES[0]) as given:
        matrix = given.bottom[2].data
        path = write(tmp_path / "h.binaryproto", matrix, legacy=legacy, double=double)
        text = f'type: "InfogainLoss" infogain_loss_param {{ source: "{path}" }}'
        with Trial(Case(text, [X, LABEL], loss(), [normal, labels(5)])) as read:
            expected = given.run()
            found = read.run()
            assert expected.keys() == found.keys()
            assert all((found[name] == expected[name]).all() for name in found)
            # Reshaped, it still holds the matrix, and looks at no file.
            path.unlink()
            read.reshape([(2, 5), (2,)])
            read.forward()
            # The classes of a net may change, its matrix does not.
            with pytest.raises(NetdefError, match="H needs 4x4 values for the 4 classes of the"):
                read.reshape([(2, 4), (2,)])


def test_a_file_that_is_no_matrix_of_these_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "h", np.zeros((5, 4)))
    check_mistake(file_mistake(path, f'H needs 5x5 values for the 5 classes of the bottom 4x5, but '
                                     f'the one in "{path}" is 5x4'))  # fmt: skip
    path.write_bytes(b"\xff\xff")
    check_mistake(file_mistake(path, f'the matrix H "{path}" is no BlobProto'))
    path.write_bytes(
        pb.BlobProto(shape=pb.BlobShape(dim=[5, 5]), data=[1] * 24).SerializeToString()
    )
    check_mistake(file_mistake(path, "has the shape (5, 5), but holds 24 values"))


def test_a_matrix_in_a_bottom_may_change() -> None:
    with Trial(CASES[0]) as trial:
        before = trial.run()
        trial.bottom[2].data[...] *= 2
        after = trial.run()
        for name in before:
            np.testing.assert_allclose(after[name], 2 * before[name])


def test_the_identity_makes_it_softmax_with_loss() -> None:
    softmax = Case('type: "SoftmaxWithLoss"', [X, LABEL], loss(), [normal, labels(5)])
    with Trial(CASES[0]) as trial, Trial(softmax) as other:
        trial.bottom[2].data[...] = np.eye(5)
        for name, wanted in other.run().items():
            np.testing.assert_allclose(trial.run()[name], wanted, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_hopeless_prediction_is_bounded(dtype: type[Any]) -> None:
    with Trial(case("", (1, 2), (1,), (2, 2), loss()), dtype) as trial:
        trial.bottom[0].data[...] = [[1e4, -1e4]]
        trial.bottom[1].data[...] = 1
        trial.bottom[2].data[...] = [[0, 0], [0, 3]]
        trial.forward()
        assert trial.top[0].data == pytest.approx(-3 * np.log(1e-20), rel=1e-6)
        trial.top[0].diff.fill(2)
        trial.backward()
        assert trial.bottom[0].diff.tolist() == [[6, -6]]


def test_a_diverged_net_says_so() -> None:
    with Trial(CASES[0]) as trial:
        trial.bottom[0].data[0] = np.nan
        trial.forward()
        assert np.isnan(trial.top[0].data)
