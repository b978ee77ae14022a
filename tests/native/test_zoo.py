"""The zoo's nets as they come, with images as people have them: each learns a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convolve import Model, optim, zoo

BATCH = 8
SMALL: dict[str, tuple[int, ...]] = {"m5": (1800, 1), "cnn3d": (9, 8, 10, 1), "unet": (16, 24, 3)}
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
