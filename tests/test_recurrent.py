"""Recurrent nets end to end, as users of Caffe write them: trained by a solver, then put to use.

A text learned by heart and written down again, sums that begin anew, captions of images. Seeds are
fixed, so each run is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdef.net import TEST, Net
from netdef.solver import Solver
from netdef.testing import threads

Feed = Callable[[int, Net], None]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """To share nets as small as these takes longer than to compute them."""
    with threads(1):
        yield


@pytest.fixture
def train(tmp_path: Path) -> Iterator[Callable[..., Solver]]:
    """Trains a net on what ``feed`` puts into it before each iteration.

    ``more``: further fields of the solver.
    """
    made: list[Solver] = []

    def run(net: str, iterations: int, feed: Feed, rate: float, more: str = "") -> Solver:
        (tmp_path / "net.prototxt").write_text(net, encoding="utf-8")
        (tmp_path / "solver.prototxt").write_text(
            f"""
            net: "{tmp_path / "net.prototxt"}"
            base_lr: {rate}
            lr_policy: "fixed"
            momentum: 0.9
            clip_gradients: 10
            max_iter: {iterations}
            random_seed: 1
            snapshot_after_train: false
            {more}
            """,
            encoding="utf-8",
        )
        solver = Solver(tmp_path / "solver.prototxt", listeners=[])
        made.append(solver)
        solver.add_callback(lambda: feed(solver.iter, solver.net), lambda: None)
        solver.solve()
        return solver

    yield run
    for solver in made:
        solver.close()


def inputs(**shapes: tuple[int, ...]) -> str:
    """An Input layer with these tops."""
    tops = " ".join(f'top: "{name}"' for name in shapes)
    dims = (" ".join(f"dim: {n}" for n in shape) for shape in shapes.values())
    wanted = " ".join(f"shape {{ {each} }}" for each in dims)
    return f'layer {{ name: "in" type: "Input" {tops} input_param {{ {wanted} }} }}\n'


def recurrent(kind: str, size: int, *bottoms: str) -> str:
    """The layer "recurrent", whose top is called "hidden"."""
    return f"""
        layer {{
          name: "recurrent" type: "{kind}" top: "hidden"
          bottom: "x" bottom: "cont" {" ".join(f'bottom: "{name}"' for name in bottoms)}
          recurrent_param {{
            num_output: {size}
            weight_filler {{ type: "uniform" min: -0.3 max: 0.3 }}
          }}
        }}
    """


def predict(outputs: int) -> str:
    """The layer "predict" on the hidden units of each step."""
    return f"""
        layer {{
          name: "predict" type: "InnerProduct" bottom: "hidden" top: "predict"
          inner_product_param {{
            num_output: {outputs} axis: 2 weight_filler {{ type: "xavier" }}
          }}
        }}
    """


CHOOSE = """
    layer {
      name: "loss" type: "SoftmaxWithLoss" bottom: "predict" bottom: "label" top: "loss"
      softmax_param { axis: 2 }
    }
"""

FIT = """
    layer { name: "loss" type: "EuclideanLoss" bottom: "predict" bottom: "sum" top: "loss" }
"""


def trained_once_more(net: str, trained: Solver) -> Net:
    """A net for use, with the parameters of the trained one."""
    made = Net.from_text(net, TEST, seed=2)
    made.share_with(trained.net)
    return made


# -- a text ----------------------------------------------------------------------------------------

TEXT = "in spain it rains, in the main, mainly on the plain."
LETTERS = sorted(set(TEXT))
CODES = np.array([LETTERS.index(letter) for letter in TEXT])
ONE_HOT = np.eye(len(LETTERS))

#: Steps in a batch: the text is longer, and the state goes on from one batch to the next.
STEPS = 17


def test_a_text_is_learned_by_heart(train: Callable[..., Solver]) -> None:
    """One letter at a time, each batch going on where the last one ended."""
    letters, batches = len(LETTERS), (len(TEXT) - 1) // STEPS
    assert batches * STEPS == len(TEXT) - 1

    def feed(iteration: int, net: Net) -> None:
        first = iteration % batches * STEPS
        net.blobs["x"].data[:, 0] = ONE_HOT[CODES[first : first + STEPS]]
        net.blobs["label"].data[:, 0] = CODES[first + 1 : first + STEPS + 1]
        net.blobs["cont"].data[:, 0] = np.arange(first, first + STEPS) > 0

    model = recurrent("LSTM", 40) + predict(letters)
    shapes = {"x": (STEPS, 1, letters), "cont": (STEPS, 1), "label": (STEPS, 1)}
    trained = train(inputs(**shapes) + model + CHOOSE, 900, feed, 0.3)

    writer = trained_once_more(inputs(x=(1, 1, letters), cont=(1, 1)) + model, trained)
    for _ in range(2):  # the second time, cont has to clear the state of the first
        written = TEXT[0]
        for _ in TEXT[1:]:
            writer.blobs["x"].data[...] = ONE_HOT[LETTERS.index(written[-1])]
            writer.blobs["cont"].data[...] = len(written) > 1
            written += LETTERS[int(writer.forward()["predict"].argmax())]
        assert written == TEXT


# -- sums ------------------------------------------------------------------------------------------

SEQUENCES = (12, 16)


def sums(random: np.random.Generator) -> tuple[Any, Any, Any]:
    """Numbers, where to begin anew, and their sums from there on."""
    x = random.uniform(-0.3, 0.3, SEQUENCES)
    cont = (random.random(SEQUENCES) > 0.2).astype(float)
    cont[0] = 0
    total = np.zeros(SEQUENCES)
    last = np.zeros(SEQUENCES[1])
    for t in range(SEQUENCES[0]):
        last = total[t] = cont[t] * last + x[t]
    return x[..., None], cont, total[..., None]


@pytest.mark.parametrize(("kind", "bound"), [("LSTM", 0.02), ("RNN", 0.05)])
def test_sums_begin_anew(train: Callable[..., Solver], kind: str, bound: float) -> None:
    random = np.random.default_rng(1)

    def feed(iteration: int, net: Net) -> None:
        for name, values in zip(("x", "cont", "sum"), sums(random), strict=True):
            net.blobs[name].data[...] = values

    shapes = {"x": (*SEQUENCES, 1), "cont": SEQUENCES, "sum": (*SEQUENCES, 1)}
    model = recurrent(kind, 16) + predict(1)
    net = train(inputs(**shapes) + model + FIT, 400, feed, 0.02).net

    feed(0, net)
    x, cont = net.blobs["x"].data, net.blobs["cont"].data
    given = net.blobs["sum"].data
    # The loss of saying 0 each time.
    nothing = float((given**2).sum()) / (2 * len(given))
    loss = net.forward()["loss"].item()
    assert loss < bound * nothing

    cont[6] = 0
    net.forward()
    before = net.blobs["predict"].data.copy()
    x[:6] = 1000 * random.standard_normal(x[:6].shape)
    net.forward()
    after = net.blobs["predict"].data
    np.testing.assert_array_equal(after[6:], before[6:])
    assert (after[:6] != before[:6]).all()


# -- captions --------------------------------------------------------------------------------------

#: Word 0 begins and ends a caption.
CAPTIONS = np.array([[1, 2, 3, 4, 0], [1, 2, 4, 3, 0], [4, 1, 2, 2, 0], [1, 3, 2, 4, 0]])
WORDS = np.eye(5)


def test_captions_follow_the_image(train: Callable[..., Solver]) -> None:
    """The same words come next or not, as the image that goes into every step says."""
    images = np.random.default_rng(1).standard_normal((4, 6))
    count, steps = CAPTIONS.shape

    def feed(iteration: int, net: Net) -> None:
        net.blobs["x"].data[...] = WORDS[np.insert(CAPTIONS.T[:-1], 0, 0, axis=0)]
        net.blobs["cont"].data[1:] = 1
        net.blobs["image"].data[...] = images
        net.blobs["label"].data[...] = CAPTIONS.T

    model = recurrent("LSTM", 24, "image") + predict(5)
    shapes = {"x": (steps, count, 5), "cont": (steps, count)}
    shapes |= {"image": (count, 6), "label": (steps, count)}
    trained = train(inputs(**shapes) + model + CHOOSE, 200, feed, 0.3)

    shapes = {"x": (1, count, 5), "cont": (1, count), "image": (count, 6)}
    writer = trained_once_more(inputs(**shapes) + model, trained)
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        words = np.zeros((1, count), int)
        writer.blobs["image"].data[...] = images[order]
        for t in range(steps):
            writer.blobs["x"].data[0] = WORDS[words[-1]]
            writer.blobs["cont"].data[...] = t > 0
            chosen = writer.forward()["predict"][0].argmax(axis=1)
            words = np.vstack([words, chosen])
        np.testing.assert_array_equal(words[1:].T, CAPTIONS[order])


# -- several nets ----------------------------------------------------------------------------------


def test_each_net_goes_on_from_its_own_state(train: Callable[..., Solver]) -> None:
    """Tests between iterations leave the state of the train net alone, and the other way round."""
    random = np.random.default_rng(1)
    batches = random.standard_normal((6, *SEQUENCES, 1))

    def feed(iteration: int, net: Net) -> None:
        net.blobs["x"].data[...] = net.blobs["sum"].data[...] = batches[iteration]
        net.blobs["cont"].data.fill(1)

    shapes = {"x": (*SEQUENCES, 1), "cont": SEQUENCES, "sum": (*SEQUENCES, 1)}
    net = inputs(**shapes) + recurrent("LSTM", 4) + predict(1) + FIT
    alone = train(net, 6, feed, 0.1, "iter_size: 2")
    tested = train(net, 6, feed, 0.1, "iter_size: 2 test_iter: 3 test_interval: 1")
    for mine, theirs in zip(
        alone.net.params["recurrent"], tested.net.params["recurrent"], strict=True
    ):
        np.testing.assert_array_equal(theirs.data, mine.data)
    (trained,), (test,) = (
        [layer.values for layer in net.layers if layer.type == "LSTM"]
        for net in (tested.net, tested.test_nets[0])
    )
    assert (trained[:, -1] != test[:, -1]).any()
