"""The mean over a test set, against the same net run record by record."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdef import events, prototxt
from netdef.data.writer import LMDBWriter
from netdef.errors import DataError, NetdefError, NetError
from netdef.evaluate import evaluate
from netdef.net import TEST, Net
from netdef.proto import netdef_pb2 as pb

RECORDS = 23
CLASSES = 4

RANDOM = np.random.default_rng(5)
PIXELS = RANDOM.integers(0, 256, (RECORDS, 6), dtype=np.uint8)
LABELS = RANDOM.integers(0, CLASSES, RECORDS)

NET = """
layer { name: "data" type: "Data" top: "x" top: "y" include { phase: TEST }
  data_param { source: "records" batch_size: 5 backend: LMDB } transform_param { scale: 0.01 } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "y" top: "accuracy" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    with LMDBWriter(folder / "records") as writer:
        for i in range(RECORDS):
            image = pb.Datum(
                channels=1, height=2, width=3, data=PIXELS[i].tobytes(), label=LABELS[i]
            )
            writer.put(b"%08d" % i, image.SerializeToString())
    return folder


@pytest.fixture(autouse=True)
def _in_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    net = Net.from_text(NET, TEST)
    net.params["ip"][0].data[...] = RANDOM.standard_normal((CLASSES, 6))
    net.params["ip"][1].data[...] = RANDOM.standard_normal(CLASSES)
    path = str(tmp_path / "weights.caffemodel")
    net.save(path)
    net.close()
    return path


class Run:
    """``evaluate``, with the outputs by name and the events it emits."""

    def __init__(self, text: str, *weights: str, **options: Any) -> None:
        self.told: list[events.Event] = []
        document = prototxt.parse(text, pb.NetParameter)
        outputs = evaluate(document, weights, emit=self.told.append, **options)
        self.outputs = {output.name: list(output.values) for output in outputs}
        (finished,) = self.of(events.EvaluationFinished)
        assert finished.outputs == outputs
        self.loss = finished.loss

    def of(self, type: type[Any]) -> list[Any]:
        return [event for event in self.told if isinstance(event, type)]


def expected(weights: str, order: list[int]) -> dict[str, float]:
    """Accuracy and loss of the records in ``order``, in float64."""
    net = Net.from_text(NET, TEST, weights=weights)
    weight, bias = (blob.data.astype(np.float64) for blob in net.params["ip"])
    net.close()
    scores = PIXELS[order] * 0.01 @ weight.T + bias
    right = scores.argmax(axis=1) == LABELS[order]
    logarithm = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(order)), LABELS[order]]
    return {"accuracy": float(right.mean()), "loss": float(logarithm.mean())}


def check(run: Run, wanted: dict[str, float]) -> None:
    assert list(run.outputs) == ["accuracy", "loss"]
    assert run.outputs["accuracy"] == pytest.approx([wanted["accuracy"]], rel=1e-6)
    assert run.outputs["loss"] == pytest.approx([wanted["loss"]], rel=1e-5)
    assert run.loss == pytest.approx(wanted["loss"], rel=1e-5)


@pytest.mark.parametrize("batch", [1, 5, 22, 23, 24, 40])
def test_every_record_counts_once(weights: str, batch: int) -> None:
    run = Run(NET.replace("batch_size: 5", f"batch_size: {batch}"), weights)
    check(run, expected(weights, list(range(RECORDS))))
    assert len(run.of(events.TestBatch)) == -(-RECORDS // batch)
    (started,) = run.of(events.EvaluationStarted)
    assert (started.batches, started.records) == (-(-RECORDS // batch), RECORDS)


@pytest.mark.parametrize("iterations", [1, 4, 6])
def test_so_many_batches_from_the_start_again_after_the_last_record(
    weights: str, iterations: int
) -> None:
    run = Run(NET, weights, iterations=iterations)
    check(run, expected(weights, [i % RECORDS for i in range(5 * iterations)]))


def test_later_weights_count_more(weights: str, tmp_path: Path) -> None:
    net = Net.from_text(NET, TEST)
    other = str(tmp_path / "other.caffemodel")
    net.save(other)
    net.close()
    check(Run(NET, other, weights), expected(weights, list(range(RECORDS))))
    check(Run(NET, weights, other), expected(other, list(range(RECORDS))))


def test_weighted_losses_are_added(weights: str) -> None:
    second = """
    layer { name: "more" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "more"
      loss_weight: 0.5 }
    """
    run = Run(NET + second, weights)
    wanted = expected(weights, list(range(RECORDS)))["loss"]
    assert run.outputs["more"] == pytest.approx([wanted], rel=1e-5)
    assert run.loss == pytest.approx(1.5 * wanted, rel=1e-5)


def test_outputs_of_several_values(weights: str) -> None:
    per_class = NET.replace('top: "accuracy"', 'top: "accuracy" top: "each"')
    each = Run(per_class, weights, iterations=1).outputs["each"]
    assert len(each) == CLASSES


def test_state_of_the_file_and_of_the_caller(weights: str) -> None:
    staged = NET.replace(
        'name: "accuracy"', 'name: "accuracy" include { min_level: 2 stage: "on" }'
    )
    assert list(Run(staged, weights).outputs) == ["loss"]
    assert list(Run(staged, weights, level=2, stages=["on"]).outputs) == ["accuracy", "loss"]
    own = 'state { phase: TRAIN level: 2 stage: "on" }' + staged
    assert list(Run(own, weights).outputs) == ["accuracy", "loss"]
    assert list(Run(own, weights, level=1).outputs) == ["loss"]


def test_outputs_without_a_mean_are_refused_before_the_run(weights: str) -> None:
    text = NET + 'layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }'
    told: list[events.Event] = []
    with pytest.raises(
        NetError, match=r'output "prob" has 20 values in each batch and 12'
    ) as error:
        evaluate(prototxt.parse(text, pb.NetParameter), [weights], emit=told.append)
    assert "--iterations" in str(error.value)
    assert not any(isinstance(event, events.EvaluationStarted) for event in told)
    # Batches of one size have one.
    text = text.replace("batch_size: 5", "batch_size: 23")
    assert len(Run(text, weights).outputs["prob"]) == 23 * CLASSES


def test_several_data_layers_need_whole_batches(weights: str) -> None:
    second = """
    layer { name: "second" type: "Data" top: "x2"
      data_param { source: "records" batch_size: 5 backend: LMDB } }
    layer { name: "away" type: "Silence" bottom: "x2" }
    """
    with pytest.raises(NetError, match='do not end together: "data" has 23 records'):
        Run(NET + second, weights)
    check(Run(NET + second, weights, iterations=1), expected(weights, list(range(5))))


def test_a_net_without_records_needs_a_number_of_batches(weights: str) -> None:
    text = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 } } }'
    with pytest.raises(NetError, match="no data layer") as error:
        Run(text, weights)
    assert "--iterations" in str(error.value)


@pytest.mark.parametrize("record", [0, RECORDS - 1])
def test_a_label_out_of_range(weights: str, tmp_path: Path, record: int) -> None:
    labels = LABELS.copy()
    labels[record] = CLASSES
    with LMDBWriter(tmp_path / "wrong") as writer:
        for i in range(RECORDS):
            image = pb.Datum(channels=1, height=2, width=3, data=bytes(6), label=labels[i])
            writer.put(b"%08d" % i, image.SerializeToString())
    text = NET.replace('"records"', f'"{tmp_path / "wrong"}"')
    with pytest.raises(DataError, match=f"label {CLASSES} .* is not one of the {CLASSES} classes"):
        Run(text, weights)


def test_no_thread_outlives_a_run_that_fails(weights: str) -> None:
    before = threading.active_count()
    with pytest.raises(NetdefError):
        Run(NET + 'layer { name: "p" type: "Softmax" bottom: "ip" top: "p" }', weights)
    with pytest.raises(NetdefError):
        Run(NET, "absent.caffemodel")
    Run(NET, weights)
    assert threading.active_count() == before
