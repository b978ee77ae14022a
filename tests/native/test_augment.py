"""Augmentation: the kernel against its definition, what each step does, and that nothing but the seed decides."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convolve import augment
from convolve.augment import Pipeline, Views
from convolve.augment.draws import Draws
from convolve.augment.fill import filled, reference
from convolve.errors import ConvolveError, FileError
from convolve.native.target import host

SHAPES = {1: (19, 2), 2: (9, 12, 3), 3: (4, 5, 6, 1)}
ALL = {
    1: (
        augment.Flip(),
        augment.Shift(0.2),
        augment.Crop((0.5, 1.0)),
        augment.Gain(),
        augment.Noise(0.1),
        augment.TimeMask(),
    ),
    2: (
        augment.Flip(),
        augment.Flip(-2),
        augment.Shift(2),
        augment.Crop(),
        augment.Affine(20, 0.1, (0.8, 1.2), 10),
        augment.Rotate(15),
        augment.Brightness(),
        augment.Contrast(),
        augment.Colour(),
        augment.Noise(),
        augment.Erase(value=3.0),
    ),
    3: (augment.Flip(-3), augment.Shift((1, 2, 0.3)), augment.Rotate(30), augment.Erase(p=1.0)),
}


def samples(rank: int, dtype: str, count: int = 7) -> np.ndarray:
    random = np.random.default_rng(rank)
    whole = random.integers(0, 256, (count, *SHAPES[rank]), np.uint8)
    return whole if dtype == "uint8" else (whole / 255).astype(np.float32)


def filled_as(fill: augment.Fill, steps: tuple[augment.Augmentation, ...]) -> tuple[augment.Augmentation, ...]:
    described = augment.describe(steps)
    return augment.restore([{k: v | ({"fill": fill} if "fill" in v else {}) for k, v in s.items()} for s in described])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("fill", ["zero", "edge", "reflect"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_kernel_equals_the_definition(rank: int, fill: augment.Fill, dtype: str) -> None:
    x = samples(rank, dtype)
    rows = np.array([6, 0, 3, 3, 1])
    plan = Pipeline(filled_as(fill, ALL[rank])).plan(x, rows, 1, 2)
    made, wanted = filled(plan, x, rows, 2), reference(plan, x, rows)
    assert made.dtype == x.dtype
    assert not np.array_equal(made, x[rows])
    if dtype == "uint8":  # a value between two whole ones may go either way
        apart = np.abs(made.astype(int) - wanted.astype(int))
        assert apart.max() <= 1
        assert (apart > 0).mean() < 0.01
    else:
        np.testing.assert_allclose(made, wanted, atol=2e-5)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_mixing_equals_its_definition(rank: int, dtype: str) -> None:
    x = samples(rank, dtype, 9)
    rows = np.array([6, 0, 8, 3, 1, 2, 2])
    plan = Pipeline((augment.Mixup(1.0), augment.CutMix(0.8), augment.CutMix()), classes=2).plan(x, rows, 1, 2)
    made = filled(plan, x, rows, 2)
    np.testing.assert_array_equal(made, reference(plan, x, rows))
    assert all((one != of).any() for one, of in zip(made, x[rows], strict=True))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_batches_made_together_are_those_made_one_by_one(rank: int) -> None:
    x, y = samples(rank, "uint8", 20), np.arange(20, dtype=np.int32)
    pipeline = Pipeline((*ALL[rank], augment.Mixup(), augment.CutMix()), classes=20)
    rows = np.arange(20)[::-1]
    together, targets = pipeline.apply(x, y, 3, 5, rows, batch=8)
    for number, first in enumerate(range(0, 20, 8)):
        made, own = pipeline.apply(x, y, 3, 5 + number, rows[first : first + 8])
        np.testing.assert_array_equal(together[first : first + 8], made)
        np.testing.assert_array_equal(targets[first : first + 8], own)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_bits_depend_on_seed_and_step_alone(rank: int) -> None:
    x, y = samples(rank, "float32"), np.arange(7, dtype=np.int32)
    pipeline = Pipeline((*ALL[rank], augment.Mixup(), augment.CutMix()), classes=7)
    first, targets = pipeline.apply(x, y, 3, 5, threads=1)
    for threads in (1, 2, 5):
        again, same = pipeline.apply(x, y, 3, 5, threads=threads)
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(targets, same)
    chosen, few = pipeline.apply(x[::-1].copy(), y[::-1].copy(), 3, 5, rows=np.arange(7)[::-1])
    np.testing.assert_array_equal(first, chosen)
    np.testing.assert_array_equal(targets, few)
    for seed, step in ((4, 5), (3, 6)):
        assert not np.array_equal(first, pipeline.apply(x, y, seed, step)[0])


def digest() -> str:
    """Of every step on a batch of each rank and type."""
    made = hashlib.sha256()
    for rank, steps in ALL.items():
        for dtype in ("uint8", "float32"):
            x, y = samples(rank, dtype), np.arange(7, dtype=np.int32)
            for array in Pipeline((*steps, augment.Mixup(), augment.CutMix()), classes=7).apply(x, y, 1, 2):
                made.update(array.tobytes())
    return made.hexdigest()


@pytest.mark.skipif(host().lanes == 4, reason="this CPU has 128-bit vectors only")
def test_any_vector_width_gives_the_same_bits() -> None:
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"CONVOLVE_TARGET": "128", "PYTHONPATH": os.pathsep.join(paths)}
    printed = subprocess.run([sys.executable, __file__], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert printed.stdout.strip() == digest()


def test_a_row_does_not_depend_on_the_batch() -> None:
    x, y = samples(2, "uint8"), np.zeros(7, np.int32)
    pipeline = Pipeline(ALL[2])
    np.testing.assert_array_equal(pipeline.apply(x, y, 0, 0)[0][:3], pipeline.apply(x[:3], y[:3], 0, 0)[0])


def test_draws_never_change() -> None:
    np.testing.assert_allclose(Draws(1, 2, 3, 2).uniform(2), DRAWN, atol=1e-12)
    many = Draws(0, 0, 0, 20_000).uniform(2)
    assert abs(many.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(many.T)[0, 1]) < 0.02


DRAWN = [[0.41365811191740454, 0.9207120075381117], [0.34979443569546353, 0.10273033886397653]]


def apply(step: augment.Augmentation, x: np.ndarray, seed: int = 0) -> np.ndarray:
    return Pipeline((step,)).apply(x, np.zeros(len(x), np.int32), seed, 0)[0]


def test_flips() -> None:
    x = samples(2, "uint8", 40)
    made = apply(augment.Flip(), x)
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(made, x, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(made, x, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 10 < sum(mirrored) < 30
    np.testing.assert_array_equal(apply(augment.Flip(-2, 1.0), x), x[:, ::-1])
    np.testing.assert_array_equal(apply(augment.Flip(p=0.0), x), x)


@pytest.mark.parametrize(("fill", "mode"), [("zero", "constant"), ("edge", "edge"), ("reflect", "reflect")])
def test_shifts_are_crops_of_what_is_padded(fill: augment.Fill, mode: str) -> None:
    x = samples(2, "uint8", 60)
    made = apply(augment.Shift(2, fill), x)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode)  # type: ignore[call-overload]
    found = []
    for picture, whole in zip(made, padded, strict=True):
        places = [(r, c) for r in range(5) for c in range(5) if np.array_equal(picture, whole[r : r + 9, c : c + 12])]
        assert len(places) == 1
        found += places
    assert len(set(found)) > 15


def test_a_crop_shows_a_part_in_full_size() -> None:
    ramp = np.tile(np.arange(40, dtype=np.float32)[:, None, None], (200, 1, 30, 1))
    made = apply(augment.Crop((0.25, 0.25), (1.0, 1.0)), ramp)[:, 1:-1, 0, 0]  # the outermost may see the edge
    np.testing.assert_allclose(np.diff(made), 0.5, atol=1e-4)
    assert made.min() >= 0
    assert made.max() <= 39
    assert made[:, 0].min() < 2
    assert made[:, -1].max() > 37


def test_a_quarter_turn_is_exact() -> None:
    x = samples(2, "float32")[:, :, :9]
    maps = augment.Rotate(90).maps(Draws(0, 0, 0, 7), (9, 9))
    signed = np.arctan2(maps[:, 0, 1], maps[:, 0, 0])
    assert np.abs(signed).max() < np.pi / 2
    turned = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], float)
    from convolve.augment.fill import pixels

    plan = Pipeline((augment.Rotate(1),)).plan(np.ascontiguousarray(x), np.arange(7), 0, 0)
    object.__setattr__(plan, "map", pixels(np.tile(turned, (7, 1, 1)), (9, 9)))
    made = filled(plan, np.ascontiguousarray(x), np.arange(7), 1)
    np.testing.assert_array_equal(made, np.rot90(x, 1, (1, 2)))


def test_tones() -> None:
    x = samples(2, "float32", 20) * 0.3 + 0.3
    made = apply(augment.Brightness(0.2), x)
    factors = made / x
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1, :1, :1], x.shape), atol=1e-5)
    assert 0.8 <= factors.min() < 0.9 < 1.1 < factors.max() <= 1.2001
    grey = (x @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    mean = grey.mean((1, 2), keepdims=True)
    made = apply(augment.Contrast(0.5), x)
    factors = (made - mean) / (x - mean)
    np.testing.assert_allclose(
        factors, np.broadcast_to(np.median(factors, (1, 2, 3), keepdims=True), x.shape), rtol=0.02
    )
    made = apply(augment.Colour(1.0), x)
    np.testing.assert_allclose(made @ np.array([0.299, 0.587, 0.114], np.float32), grey[..., 0], atol=1e-5)
    assert np.abs(made - x).max() > 0.05
    signal = samples(1, "float32", 50)
    made = apply(augment.Gain(6.0), signal)
    assert 0.5 < (made.max((1, 2)) / signal.max((1, 2))).min() < 0.7
    bright = apply(augment.Brightness(1.0), np.full((40, 5, 5, 1), 250, np.uint8))
    assert bright.max() == 255
    assert bright.min() < 50


def test_contrast_after_brightness_knows_the_new_mean() -> None:
    x = samples(2, "float32", 8)
    steps = (augment.Brightness(0.5), augment.Contrast(0.5))
    made = Pipeline(steps).apply(x, np.zeros(8, np.int32), 0, 0)[0]
    before = Pipeline(steps[:1]).apply(x, np.zeros(8, np.int32), 0, 0)[0]
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    np.testing.assert_allclose((made @ weights).mean((1, 2)), (before @ weights).mean((1, 2)), atol=1e-5)


def test_noise_is_nearly_normal() -> None:
    x = np.zeros((200, 30, 30, 1), np.float32)
    made = apply(augment.Noise(0.5), x)
    deviations = made.std((1, 2, 3))
    assert 0 < deviations.min() < 0.05
    assert 0.45 < deviations.max() < 0.55
    scaled = made / deviations[:, None, None, None]
    assert abs(scaled.mean()) < 0.01
    assert abs((np.abs(scaled) < 1).mean() - 0.683) < 0.02
    assert abs(np.corrcoef(scaled[0].ravel(), scaled[1].ravel())[0, 1]) < 0.1


def test_erasing() -> None:
    x = np.ones((100, 20, 20, 3), np.float32)
    made = apply(augment.Erase(p=0.5, scale=(0.1, 0.3), value=-2.0), x)
    holes = (made[..., 0] == -2).reshape(100, -1).mean(1)
    assert set(np.unique(made)) == {-2.0, 1.0}
    assert 30 < (holes > 0).sum() < 70
    assert holes[holes > 0].min() > 0.05
    assert holes.max() < 0.36
    masked = apply(augment.TimeMask(0.2, 3), np.ones((50, 100, 1), np.float32))
    assert (masked == 0).mean((1, 2)).max() <= 0.61
    assert (masked == 0).any()


def test_mixup_blends_samples_and_targets() -> None:
    x = np.zeros((64, 4, 4, 1), np.float32)
    x += np.arange(64)[:, None, None, None]
    made, targets = Pipeline((augment.Mixup(0.4),), classes=64).apply(x, np.arange(64, dtype=np.int32), 0, 0)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(targets @ np.arange(64, dtype=np.float32), made[:, 0, 0, 0], rtol=1e-4, atol=1e-3)
    assert 1 < (targets > 0).sum(1).mean() <= 2
    values = np.zeros((64, 1), np.float32) + np.arange(64)[:, None]
    blended = Pipeline((augment.Mixup(),)).apply(x, values, 0, 0)
    np.testing.assert_allclose(blended[0][:, 0, 0], blended[1], rtol=1e-4, atol=1e-4)


def test_the_shares_of_mixup_are_betas() -> None:
    for alpha in (0.2, 1.0, 2.0):
        shares = augment.Mixup(alpha).shares(Draws(0, 0, 0, 20_000))
        assert abs(shares.mean() - 0.5) < 0.01
        assert abs(shares.var() - 1 / (4 * (2 * alpha + 1))) < 0.005


def test_cutmix_pastes_a_box() -> None:
    x = np.zeros((50, 10, 10, 1), np.uint8) + np.arange(50, dtype=np.uint8)[:, None, None, None]
    made, targets = Pipeline((augment.CutMix(),), classes=50).apply(x, np.arange(50, dtype=np.int32), 0, 0)
    for m, (picture, target) in enumerate(zip(made, targets, strict=True)):
        shares = np.bincount(picture.ravel(), minlength=50) / 100
        np.testing.assert_allclose(target, shares, atol=1e-6)
        assert target[m] > 0 or shares[m] == 0
    assert 15 < (targets.max(1) < 1).sum() < 35


def test_targets_of_places_move_with_their_samples() -> None:
    x = np.random.default_rng(0).integers(0, 3, (12, 8, 8, 1)).astype(np.float32)
    steps = (augment.Flip(), augment.Flip(-2), augment.Shift(2), augment.CutMix(), augment.Brightness(0.0))
    pipeline = Pipeline(steps, places=True, classes=3)
    made, values = pipeline.apply(x, x.copy(), 0, 0)
    np.testing.assert_array_equal(made, values)
    assert not np.array_equal(made, x)
    labels = Pipeline(steps[:3], places=True).apply(x, x[..., 0].astype(np.int32), 0, 0)[1]
    np.testing.assert_array_equal(labels, Pipeline(steps[:3]).apply(x, np.zeros(12, np.int32), 0, 0)[0][..., 0])
    with pytest.raises(ConvolveError, match="do not lie on samples"):
        pipeline.apply(x, np.zeros((12, 4, 4), np.int32), 0, 0)


def test_views() -> None:
    x = samples(2, "uint8")
    plain, mirrored = Views((augment.Flip(),)).of(x)
    np.testing.assert_array_equal(plain, x)
    np.testing.assert_array_equal(mirrored, x[:, :, ::-1])
    views = Views((augment.Shift(1, "edge"), augment.Flip())).of(x)
    assert len(views) == 10
    np.testing.assert_array_equal(views[2][:, 1:], x[:, :-1])
    np.testing.assert_array_equal(views[6][:, :, 1:], x[:, :, :-1])
    np.testing.assert_array_equal(views[7], views[6][:, :, ::-1])
    with pytest.raises(ConvolveError, match="flips and shifts only"):
        Views((augment.Erase(),))
    with pytest.raises(ConvolveError, match="flips and shifts only"):
        Views((augment.Rotate(),)).of(x)


def test_are_data() -> None:
    steps = tuple(kind() for kind in augment.Augmentation.vocabulary.values())
    assert augment.restore(augment.describe(steps)) == steps
    assert augment.restore([{"Shift": {"amount": [1, 0.5], "fill": "edge"}}]) == (augment.Shift((1, 0.5), "edge"),)
    with pytest.raises(
        FileError, match=r"augment\[0\]: expected .*one of the names Affine, Brightness.*Received: \['os'\]"
    ):
        augment.restore([{"os": {}}])
    with pytest.raises(FileError, match=r"augment\[0\]\.Flip: Flip: p is a probability, 0 to 1"):
        augment.restore([{"Flip": {"p": 2}}])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: augment.Flip(axis=0), "axis counts from the last"),
        (lambda: augment.Shift(-1), "amount is not below 0"),
        (lambda: augment.Shift(1.5), "a share is at most 1"),
        (lambda: augment.Shift(1, "wrap"), "fill is one of zero, edge, reflect"),  # type: ignore[arg-type]
        (lambda: augment.Crop((0.0, 1.0)), "scale is"),
        (lambda: augment.Rotate(200), "degrees are"),
        (lambda: augment.Mixup(0.0), "alpha is"),
        (lambda: Pipeline((augment.Shift(1, "edge"), augment.Rotate(5))), "agree on fill"),
        (lambda: Pipeline(("flip",)), "expected a list of augmentations"),  # type: ignore[arg-type]
        (lambda: apply(augment.Flip(-3), samples(2, "uint8")), "2 spatial dimensions"),
        (lambda: apply(augment.Rotate(5), samples(1, "uint8")), "no plane"),
        (lambda: apply(augment.TimeMask(), samples(2, "uint8")), "only signals"),
        (lambda: apply(augment.Shift((1, 2, 3)), samples(2, "uint8")), "one for each of 2"),
        (lambda: apply(augment.Mixup(), samples(2, "uint8")), "how many classes"),
    ],
)
def test_what_makes_no_sense_is_refused(make: object, words: str) -> None:
    with pytest.raises(ConvolveError, match=words):
        make()  # type: ignore[operator]


if __name__ == "__main__":
    print(digest())
