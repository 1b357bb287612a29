"""Every layer type x every case of its test file x every check of the contract.

Cases stand in ``tests/layers/test_*.py``, checks in ``netdef/testing.py``. A layer type without
cases, or with fewer than three mistakes, fails the suite. The last part breaks layers on purpose: a
check that cannot fail is none.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdef import jit, prototxt
from netdef.blob import Blob
from netdef.layer import Layer, layer_types
from netdef.proto import netdef_pb2 as pb
from netdef.testing import CHECKS, Case, Check, Mistake, check_mistake, threads

FILES = sorted((Path(__file__).parent / "layers").glob("test_*.py"))

#: A layer has at least this many mistakes listed.
MISTAKES_PER_LAYER = 3


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"cases_of_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def type_of(entry: Case | Mistake) -> str:
    return prototxt.parse(entry.prototxt, pb.LayerParameter).message.type


MODULES = [load(path) for path in FILES]
CASES: list[Case] = [case for module in MODULES for case in getattr(module, "CASES", ())]
MISTAKES: list[Mistake] = [m for module in MODULES for m in getattr(module, "MISTAKES", ())]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Only the check of threads needs more, and to start them takes longer than these layers."""
    with threads(1):
        yield


@pytest.mark.parametrize(
    ("check", "case"),
    [
        pytest.param(check, case, id=f"{check.name}-{case}")
        for case in CASES
        for check in CHECKS
        if check.applies(case)
    ],
)
def test_contract(check: Check, case: Case) -> None:
    check.run(case)


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_mistake_is_explained(mistake: Mistake) -> None:
    check_mistake(mistake)


@pytest.mark.parametrize("type_name", layer_types())
def test_every_layer_has_cases_and_mistakes(type_name: str) -> None:
    where = "tests/layers/test_<name>.py, as netdef/testing.py explains"
    assert any(type_of(case) == type_name for case in CASES), f"{type_name} has no CASES: {where}"
    count = sum(type_of(mistake) == type_name for mistake in MISTAKES)
    assert count >= MISTAKES_PER_LAYER, f"{type_name} has {count} MISTAKES: {where}"


# -- layers broken on purpose ----------------------------------------------------------------------

Pass = Callable[[Layer, list[Blob], list[Blob]], None]


def case_of(type_name: str) -> Case:
    return next(case for case in CASES if type_of(case) == type_name)


def check_of(name: str) -> Check:
    return next(check for check in CHECKS if check.name == name)


def after(change: Pass) -> Callable[[Pass], Pass]:
    """A pass that goes right, and then does this to (layer, its first list, its second list)."""

    def broken(right: Pass) -> Pass:
        def run(layer: Layer, first: list[Blob], second: list[Blob]) -> None:
            right(layer, first, second)
            change(layer, first, second)

        return run

    return broken


def scale_bottom(factor: float) -> Callable[[Pass], Pass]:
    def change(layer: Layer, top: list[Blob], bottom: list[Blob]) -> None:
        bottom[0].diff *= factor

    return after(change)


def scale_param(index: int, factor: float) -> Callable[[Pass], Pass]:
    def change(layer: Layer, top: list[Blob], bottom: list[Blob]) -> None:
        layer.blobs[index].diff *= factor

    return after(change)


def nothing(right: Pass) -> Pass:
    """A pass that was forgotten."""
    return lambda layer, first, second: None


def adds_to_the_bottom(right: Pass) -> Pass:
    def run(layer: Layer, top: list[Blob], bottom: list[Blob]) -> None:
        before = bottom[0].diff.copy()
        right(layer, top, bottom)
        bottom[0].diff += before

    return run


def overwrites_parameters(right: Pass) -> Pass:
    def run(layer: Layer, top: list[Blob], bottom: list[Blob]) -> None:
        for blob in layer.blobs:
            blob.diff.fill(0)
        right(layer, top, bottom)

    return run


def always_adds(right: Pass) -> Pass:
    def run(layer: Layer, top: list[Blob], bottom: list[Blob]) -> None:
        layer.adds = [True] * len(layer.blobs)
        right(layer, top, bottom)

    return run


def learns_everything(right: Pass) -> Pass:
    def run(layer: Layer, top: list[Blob], bottom: list[Blob]) -> None:
        layer.learn = [True] * len(layer.blobs)
        right(layer, top, bottom)

    return run


def remembers_its_first_shape(right: Pass) -> Pass:
    """A setup whose second call changes nothing."""

    def run(layer: Layer, bottom: list[Blob], top: list[Blob]) -> None:
        if not hasattr(layer, "was_set_up"):
            layer.was_set_up = True  # type: ignore[attr-defined]
            right(layer, bottom, top)

    return run


def makes_a_gradient_nobody_asked_for(right: Pass) -> Pass:
    def run(layer: Layer, top: list[Blob], bottom: list[Blob]) -> None:
        asked = [blob.diff for blob in bottom]
        for blob in bottom:
            if blob.diff is None:
                blob.bind(blob.data, np.zeros_like(blob.data))
        right(layer, top, bottom)
        if any(diff is None for diff in asked):
            layer.blobs[0].diff += 1

    return run


@after
def nudges_a_top(layer: Layer, bottom: list[Blob], top: list[Blob]) -> None:
    top[0].flat[0] += 1e-3


@after
def loses_the_last_value(layer: Layer, bottom: list[Blob], top: list[Blob]) -> None:
    top[0].flat[-1] = np.nan


@after
def sorts_its_bottom(layer: Layer, bottom: list[Blob], top: list[Blob]) -> None:
    bottom[0].flat.sort()


@after
def spends_the_gradient_of_its_top(layer: Layer, top: list[Blob], bottom: list[Blob]) -> None:
    top[0].diff.fill(0)


@after
def computes_its_top_again(layer: Layer, top: list[Blob], bottom: list[Blob]) -> None:
    y = 1 / (1 + np.exp(-bottom[0].data))
    bottom[0].diff[...] = top[0].diff * y * (1 - y)


@after
def counts_threads(layer: Layer, bottom: list[Blob], top: list[Blob]) -> None:
    top[0].flat[0] += jit.num_threads()


def clears_its_top_first(right: Pass) -> Pass:
    def run(layer: Layer, bottom: list[Blob], top: list[Blob]) -> None:
        top[0].data.fill(0)
        right(layer, bottom, top)

    return run


def answers_in_an_array_of_its_own(right: Pass) -> Pass:
    def run(layer: Layer, top: list[Blob], bottom: list[Blob]) -> None:
        bottom[0].bind(bottom[0].data, bottom[0].diff.copy())
        right(layer, top, bottom)

    return run


@after
def forgets_a_bias(layer: Layer, top: list[Blob], bottom: list[Blob]) -> None:
    layer.blobs[1].diff.fill(0)


@after
def leaves_an_edge(layer: Layer, top: list[Blob], bottom: list[Blob]) -> None:
    bottom[0].diff[..., -1] = np.nan


@after
def mistakes_the_mask(layer: Layer, top: list[Blob], bottom: list[Blob]) -> None:
    bottom[0].diff[...] = np.roll(bottom[0].diff, 1)


BREAKS: list[tuple[str, str, str, Callable[[Pass], Pass]]] = [
    ("forward_in_float32", "InnerProduct", "forward", nudges_a_top),
    ("forward_in_float64", "InnerProduct", "forward", nudges_a_top),
    ("forward_in_float64", "ReLU", "forward", loses_the_last_value),
    ("forward_in_float64", "Softmax", "forward", nothing),
    ("gradient", "ReLU", "backward", scale_bottom(-1)),
    ("gradient", "InnerProduct", "backward", scale_bottom(1.001)),
    ("gradient", "InnerProduct", "backward", scale_param(0, 1.001)),
    ("gradient", "InnerProduct", "backward", scale_param(1, 1.001)),
    ("gradient", "Convolution", "backward", scale_bottom(1.001)),
    ("gradient", "Convolution", "backward", scale_param(0, 1.001)),
    ("gradient", "Convolution", "backward", scale_param(1, 1.001)),
    ("gradient", "Convolution", "backward", forgets_a_bias),
    ("gradient", "SoftmaxWithLoss", "backward", scale_bottom(2)),
    ("gradient", "EuclideanLoss", "backward", scale_bottom(0.5)),
    ("gradient", "Pooling", "backward", leaves_an_edge),
    ("gradient", "Pooling", "backward", mistakes_the_mask),
    ("gradient", "Split", "backward", nothing),
    ("gradient", "Silence", "backward", nothing),
    ("gradient_in_float32", "InnerProduct", "backward", scale_bottom(1.001)),
    ("bottom_gradients_are_overwritten", "ReLU", "backward", adds_to_the_bottom),
    ("parameter_gradients_accumulate", "InnerProduct", "backward", overwrites_parameters),
    ("parameter_gradients_are_written_where_asked", "InnerProduct", "backward", always_adds),
    (
        "bottoms_without_gradient_are_left_out",
        "InnerProduct",
        "backward",
        makes_a_gradient_nobody_asked_for,
    ),
    (
        "parameters_that_do_not_learn_are_left_alone",
        "InnerProduct",
        "backward",
        learns_everything,
    ),
    ("inputs_are_left_alone", "Pooling", "forward", sorts_its_bottom),
    ("inputs_are_left_alone", "ReLU", "backward", spends_the_gradient_of_its_top),
    ("backward_reads_what_it_says", "Sigmoid", "backward", computes_its_top_again),
    ("in_place", "ReLU", "forward", clears_its_top_first),
    ("reshape", "Pooling", "setup", remembers_its_first_shape),
    ("any_number_of_threads", "Softmax", "forward", counts_threads),
    ("in_a_net", "ReLU", "backward", answers_in_an_array_of_its_own),
]


@pytest.mark.parametrize(
    ("name", "type_name", "method", "breaks"),
    BREAKS,
    ids=[f"{type_name}-{method}-{name}" for name, type_name, method, _ in BREAKS],
)
def test_a_broken_layer_is_found(
    name: str,
    type_name: str,
    method: str,
    breaks: Callable[[Pass], Pass],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name == "any_number_of_threads":
        with threads(None):
            if jit.num_threads() == 1:
                pytest.skip("there is only one thread here")
    layer, check, case = layer_types()[type_name], check_of(name), case_of(type_name)
    check.run(case)
    right: Any = getattr(layer, method)
    if name == "gradient_in_float32":
        changed = breaks(right)

        def only_single(self: Layer, top: list[Blob], bottom: list[Blob]) -> None:
            (changed if self.dtype == np.float32 else right)(self, top, bottom)

        monkeypatch.setattr(layer, method, only_single)
    else:
        monkeypatch.setattr(layer, method, breaks(right))
    with pytest.raises((AssertionError, ValueError)):
        check.run(case)


def test_shapes_that_remember_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right: Any = layer_types()["ReLU"].shapes

    def grows(layer: Layer, *bottoms: Any) -> Any:
        layer.calls = getattr(layer, "calls", 0) + 1  # type: ignore[attr-defined]
        return [(*shape, layer.calls) for shape in right(layer, *bottoms)]  # type: ignore[attr-defined]

    monkeypatch.setattr(layer_types()["ReLU"], "shapes", grows)
    with pytest.raises(AssertionError, match="and then"):
        check_of("shapes_are_pure").run(case_of("ReLU"))


def test_every_check_is_seen_to_fail() -> None:
    """None of the checks is left out above."""
    assert {check.name for check in CHECKS} == {name for name, *_ in BREAKS} | {"shapes_are_pure"}
