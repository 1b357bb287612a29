"""The drawn digits: their geometry, their bytes, and that they are worth learning."""

from __future__ import annotations

import hashlib
from pathlib import Path

import lmdb
import numpy as np
import pytest
from numpy.typing import NDArray

from netdef.data import digits
from netdef.proto import netdef_pb2 as pb

Set = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def make(count: int, seed: int = 0, split: str = "train") -> Set:
    batches = list(digits.generate(count, seed=seed, split=split))
    return np.concatenate([b[0] for b in batches]), np.concatenate([b[1] for b in batches])


@pytest.fixture(scope="module")
def train() -> Set:
    return make(2000)


@pytest.fixture(scope="module")
def test() -> Set:
    return make(500, split="test")


def test_random_bits_are_splitmix64() -> None:
    # The first outputs for seed 1234567, from the Rosetta Code task on SplitMix64.
    assert digits._bits(np.array([1234567], np.uint64), 5)[0].tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_uniform_numbers_are_uniform() -> None:
    uniform = digits._uniform(np.arange(100, dtype=np.uint64), 1000)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    # 10,000 in each tenth, give or take five standard deviations.
    assert np.abs(np.histogram(uniform, 10, (0, 1))[0] - 10_000).max() < 5 * np.sqrt(9000)


def test_noise_is_standard() -> None:
    noise = digits._noise(np.arange(100, dtype=np.uint64))
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


@pytest.mark.parametrize("label", range(10))
def test_skeletons_stay_in_their_box(label: int) -> None:
    assert len(digits.SKELETONS[label]) >= 4
    for skeleton in digits._skeletons()[label]:
        assert len(skeleton.starts) == len(skeleton.ends) == digits.SEGMENTS
        assert (skeleton.controls >= 0).all()
        assert (skeleton.controls <= (digits.BOX_WIDTH, digits.BOX_HEIGHT)).all()
        # Each point is an affine combination of control points.
        np.testing.assert_allclose(skeleton.basis.sum(1), 1, atol=1e-6)


def test_a_skeleton_passes_through_its_points_and_lifts_the_pen() -> None:
    skeleton = digits._skeleton("0,0 5,9 10,0 | 10,0 10,20")
    points = skeleton.basis @ skeleton.controls
    for point in ((0, 0), (5, 9), (10, 0), (10, 20)):
        assert np.abs(points - point).sum(1).min() < 1e-5
    lengths = np.sqrt(((points[skeleton.ends] - points[skeleton.starts]) ** 2).sum(1))
    assert 40 < lengths.sum() < 43  # two chords of 10.3, a little bent, and 20
    assert lengths.max() < 3


def test_catmull_rom_keeps_straight_lines_straight() -> None:
    for t in (0.0, 0.25, 0.5, 1.0):
        assert np.dot(digits._catmull_rom(t), (-1, 0, 1, 2)) == pytest.approx(t)


def test_a_flat_patch_bends_nothing_and_a_moved_one_shifts() -> None:
    points = np.random.default_rng(0).uniform(0, 14, (2, 3, 8)).astype(np.float32)
    patch = np.full((3, 32), 0.5, np.float32)
    np.testing.assert_array_equal(np.stack(digits._bend(points, patch)), points)
    patch[:, :16] = 1
    x, y = digits._bend(points, patch)
    np.testing.assert_allclose(x, points[0] + digits.BEND, atol=1e-5)
    np.testing.assert_array_equal(y, points[1])


def test_distance_is_that_to_the_nearest_segment() -> None:
    rng = np.random.default_rng(0)
    shape = (2, 3, digits.SEGMENTS)
    starts, ends = rng.uniform(0, 27, (2, *shape)).astype(np.float32)
    ends[:, 0, 0] = starts[:, 0, 0]  # a dot
    weights = rng.uniform(0.5, 2, shape[1:]).astype(np.float32)
    found = digits._distance(starts, ends, weights)

    y, x = np.mgrid[: digits.SIDE, : digits.SIDE].reshape(2, -1).astype(np.float64)
    pixel = np.stack((x, y))[:, None, None, :]
    a, b = starts.astype(np.float64)[..., None], ends.astype(np.float64)[..., None]
    squared = np.maximum(((b - a) ** 2).sum(0), 1e-12)
    t = np.clip(((pixel - a) * (b - a)).sum(0) / squared, 0, 1)
    distance = np.sqrt(((a + t * (b - a) - pixel) ** 2).sum(0) * weights[..., None]).min(1)
    np.testing.assert_allclose(found, distance, atol=0.02)


def test_classes_are_balanced_and_shuffled() -> None:
    for count in (1, 10, 997, 2000):
        _, labels = make(count)
        counts = np.bincount(labels, minlength=10)
        assert counts.max() - counts.min() <= 1
    # Neighbours agree as often as chance has it: a tenth of 1999 times, sd 13.
    assert abs(int((labels[1:] == labels[:-1]).sum()) - 200) < 65


def test_images_are_white_on_black_and_whole(train: Set) -> None:
    images, _ = train
    assert images.dtype == np.uint8
    assert images.shape == (2000, 28, 28)
    frame = np.ones((28, 28), bool)
    frame[1:-1, 1:-1] = False
    # Nothing but noise on the border, and every image has some bright ink.
    assert images[:, frame].mean() < 10
    assert np.percentile(images[:, frame], 99) < 64
    assert (images.reshape(2000, -1).max(1) > 150).all()


def test_no_image_comes_twice(train: Set, test: Set) -> None:
    everything = np.concatenate((train[0], test[0], make(500, seed=1)[0]))
    assert len(np.unique(everything.reshape(len(everything), -1), axis=0)) == len(everything)


def test_an_image_does_not_depend_on_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(150)
    monkeypatch.setattr(digits, "BATCH", 7)
    pieces = make(150)
    np.testing.assert_array_equal(whole[0], pieces[0])
    np.testing.assert_array_equal(whole[1], pieces[1])


def test_the_set_never_changes() -> None:
    """Accuracies are quoted for this set, so its bytes are a format: the same on every machine and
    under every numpy. A digest is the only way to say so; it has no other source."""
    digest = hashlib.sha256()
    for split in digits.SPLITS:
        for array in make(300, split=split):
            digest.update(array.tobytes())
    assert digest.hexdigest() == DIGEST


DIGEST = "e9cd4223148c4c283fcf05147a41379d170fd33d9d2b6cf93459a74bd97dd428"


def test_nearest_neighbours_learn_it_but_not_all_of_it(train: Set, test: Set) -> None:
    known = train[0].reshape(2000, -1).astype(np.float32)
    asked = test[0].reshape(500, -1).astype(np.float32)
    nearest = ((known * known).sum(1) - 2 * (asked @ known.T)).argmin(1)
    accuracy = (train[1][nearest] == test[1]).mean()
    assert 0.85 < accuracy < 0.97


@pytest.mark.parametrize(
    ("count", "seed", "split"),
    [(0, 0, "train"), (digits.MOST_IMAGES + 1, 0, "train"), (1, -1, "train"), (1, 2**64, "test")],
)
def test_arguments_out_of_range(count: int, seed: int, split: str) -> None:
    with pytest.raises(ValueError, match=r"not in 0|not in 1"):
        next(digits.generate(count, seed=seed, split=split))


def test_write_makes_both_databases(tmp_path: Path) -> None:
    seen = []
    written = digits.write(
        tmp_path, train=70, test=30, seed=5, progress=lambda *event: seen.append(event)
    )
    assert [(each.path.name, each.records) for each in written] == [
        ("digits_train_lmdb", 70),
        ("digits_test_lmdb", 30),
    ]
    assert seen[-1] == ("digits_test_lmdb", 30, 30)
    for database, split in zip(written, digits.SPLITS, strict=True):
        images, labels = make(database.records, seed=5, split=split)
        environment = lmdb.open(str(database.path), readonly=True)
        with environment.begin() as transaction:
            for i, (key, value) in enumerate(transaction.cursor()):
                datum = pb.Datum.FromString(value)
                assert key == b"%08d" % i
                assert (datum.channels, datum.height, datum.width) == (1, 28, 28)
                assert (datum.data, datum.label) == (images[i].tobytes(), labels[i])
        environment.close()
