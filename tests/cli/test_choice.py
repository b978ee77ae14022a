"""The rule: what is chosen for which data."""

from __future__ import annotations

import numpy as np
import pytest

from convolve.augment import Affine, Augmentation, Erase, Flip, Gain, Noise, Shift
from convolve.cli.choice import Choice, choose
from convolve.data.dataset import Dataset

RANDOM = np.random.default_rng(0)


def chosen(x: np.ndarray, y: np.ndarray) -> Choice:
    data = Dataset("set", x[:-40], y[:-40], None, None, tuple(map(str, range(int(y.max()) + 1))))
    return choose(data, data.x_train, data.y_train.astype(np.int32), (x[-40:], y[-40:]))


def images(*shape: int, side: bool = False, noise: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Two classes: bright above and below, or on the left and on the right; or none that can be told apart."""
    y = np.arange(200) % 2
    x = RANDOM.integers(0, 60, (200, *shape)).astype(np.uint8)
    if side:
        half = shape[-2] // 2
        x[y == 0, ..., :half, :] += 150
        x[y == 1, ..., half:, :] += 150
    elif not noise:
        x[y == 0, : shape[0] // 2] += 150
        x[y == 1, shape[0] // 2 :] += 150
    return x, y


def kinds(steps: tuple[Augmentation, ...]) -> list[type]:
    return [type(step) for step in steps]


def test_easy_images_that_may_be_mirrored() -> None:
    choice = chosen(*images(12, 12, 1))
    assert (choice.net, choice.smoothing, choice.batch_size) == ("digits", 0.0, 64)
    assert kinds(choice.augment) == [Flip, Affine]
    assert choice.why.startswith("160 images of 12 x 12; a fully-connected net soon knows 100.00% of them")


def test_easy_images_whose_sides_matter_are_not_flipped() -> None:
    choice = chosen(*images(12, 12, 1, side=True))
    assert (choice.net, kinds(choice.augment)) == ("digits", [Affine])


def test_easy_images_with_room_for_it_get_a_net_that_shrinks_them_soon() -> None:
    choice = chosen(*images(24, 30, 1, side=True))
    assert (choice.net, choice.smoothing, kinds(choice.augment)) == ("glyphs", 0.0, [Affine])
    assert choice.learning("glyphs").rate == pytest.approx(0.015 / 2**0.5)


def test_hard_images_get_a_larger_net_and_smoothed_labels() -> None:
    choice = chosen(*images(12, 12, 3, noise=True))
    assert (choice.net, choice.smoothing) == ("small", 0.1)
    assert kinds(choice.augment)[-1:] == [Shift]
    assert chosen(*images(12, 7, 3, noise=True)).net == "digits"
    choice = chosen(*images(24, 30, 1, noise=True))
    assert (choice.net, choice.epochs) == ("thumbnails", 12)
    assert kinds(choice.augment)[-2:] == [Shift, Erase]


@pytest.mark.parametrize(
    ("shape", "net", "kind"),
    [
        ((48, 48, 3), "resnet20", Flip),
        ((3, 3, 1), "mlp", None),
        ((12, 12, 12, 1), "cnn3d", Flip),
        ((4, 12, 12, 1), "digits", Flip),
        ((600, 1), "digits", Shift),
    ],
)
def test_net_and_augmentation_suit_the_size(shape: tuple[int, ...], net: str, kind: type | None) -> None:
    choice = chosen(*images(*shape))
    assert choice.net == net
    assert (kinds(choice.augment) or [None])[0] == kind


def test_noise_is_a_share_of_what_signals_are() -> None:
    x = RANDOM.normal(0, 200, (200, 2000, 1)).astype(np.float32)
    choice = chosen(x, np.arange(200) % 2)
    assert choice.net == "m5_narrow"
    assert Gain(6.0) in choice.augment
    [noise] = [step for step in choice.augment if isinstance(step, Noise)]
    assert noise.amount == pytest.approx(10, rel=0.05)
    bytes_ = choose_bytes(x)
    assert bytes_.amount == pytest.approx(20 / 20 / 255, rel=0.05)


def choose_bytes(x: np.ndarray) -> Noise:
    choice = chosen(np.clip(x / 10 + 128, 0, 255).astype(np.uint8), np.arange(200) % 2)
    [noise] = [step for step in choice.augment if isinstance(step, Noise)]
    return noise
