"""The zoo's nets as they come, with images as people have them: each learns a batch; what their layers see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convolve import Model, optim, zoo
from convolve.view.summary import receptive_fields

BATCH = 8
SMALL: dict[str, tuple[int, ...]] = {
    "m5": (1800, 1),
    "m5_narrow": (1800, 1),
    "cnn3d": (9, 8, 10, 1),
    "unet": (13, 26, 3),
    "autoencoder": (16, 12, 1),
}
LONG: dict[str, tuple[int, ...]] = {
    "m5": (2300, 1),
    "m5_narrow": (2300, 1),
    "cnn3d": (40, 8, 8, 1),
    "unet": (112, 16, 3),
    "autoencoder": (40, 16, 1),
    "squeezenet": (41, 33, 3),
    "glyphs": (40, 32, 1),
    "small": (40, 32, 1),
    "thumbnails": (40, 32, 1),
}
"""Long enough in one dimension, and such that the first windows leave nothing unread at the end."""
CHUNK = 16
"""Images at a time, whose activations are all kept."""
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"hidden": 32, "dropout": 0.0} for name in ("vgg11", "vgg13", "vgg16", "vgg19")},
    **{name: {"dropout": 0.0} for name in ("squeezenet", "mobilenet_v2")},
}


@pytest.mark.parametrize("name", zoo.NETS)
def test_every_net_learns_a_batch(name: str) -> None:
    entry = zoo.by_name(name)
    shape = SMALL.get(name, (*(min(n, 32) for n in entry.input_shape[:-1]), entry.input_shape[-1]))
    model = Model(entry.make(classes=3, **OPTIONS.get(name, {})), shape, seed=1)
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (BATCH, *shape), np.uint8)
    y = random.integers(0, 3, (BATCH, *model.output_shape[:-1]))
    before = {key: np.array(array) for key, array in model.parameters.items()}
    trainer = model.trainer(optimizer=optim.SGD(1e-3, clip=1.0))
    losses = [trainer.step(x, y) for _ in range(4)]
    assert losses[-1] < losses[0]
    kept = [key for key, array in model.parameters.items() if key.endswith("weight") and (before[key] == array).all()]
    assert not kept
    assert np.isfinite(model.predict(x)).all()


def reached(model: Model, dim: int) -> dict[str, np.ndarray]:
    """For each layer, which of its values (line of the input along `dim`, *shape) a line of NaN reaches."""
    shape, found = model.input_shape, {}
    for start in range(0, shape[dim], CHUNK):
        x = np.ones((min(CHUNK, shape[dim] - start), *shape), np.float32)
        for line, image in enumerate(x, start):
            np.moveaxis(image, dim, 0)[line] = np.nan
        for path, made in model.network.trace(x).items():
            found.setdefault(path, []).append(np.isnan(made))
    return {path: np.concatenate(parts) for path, parts in found.items()}


@pytest.mark.parametrize("name", zoo.NETS)
def test_receptive_fields_are_where_nan_comes_from(name: str) -> None:
    """Each position of each layer sees the lines of the input from which NaN reaches it, and no others."""
    entry = zoo.by_name(name)
    shape = LONG.get(name, (40, 33, entry.input_shape[-1]))
    model = Model(entry.make(**OPTIONS.get(name, {})), shape)
    built = model.network.forward(1)
    fields = receptive_fields(built.input, built.output)
    for dim, size in enumerate(shape[:-1]):
        found = reached(model, dim)
        for row in built.construction.rows:
            field, made = fields[row.output.serial][dim], found[row.path]
            lines = np.arange(size)[:, None]
            sees = (field.low <= lines) & (lines <= field.high)
            if made.ndim == len(shape) + 1:
                others = tuple(axis for axis in range(1, made.ndim) if axis != 1 + dim)
                np.testing.assert_array_equal(made.any(others), sees, row.path)
            else:  # flattened, or the mean of all
                np.testing.assert_array_equal(made.any(1), sees.any(1), row.path)
