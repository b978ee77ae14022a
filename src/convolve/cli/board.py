"""`--tensorboard`: a training's curves as TensorBoard reads them, in the run's folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convolve.errors import ConvolveError
from convolve.training.fit import Callback, Progress

BOARD = "tensorboard"
"""The folder in that of the run."""


def writer() -> Callable[..., Any]:
    """What writes event files.

    Raises:
        ConvolveError: tensorboardX is missing.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ConvolveError("--tensorboard needs tensorboardX: pip install 'convolve[tensorboard]'") from None
    made: Callable[..., Any] = SummaryWriter
    return made


@contextmanager
def on_board(folder: Path, steps: int, asked: bool) -> Iterator[tuple[Callback, ...]]:
    """What training has to call, if it is `asked` for; `steps` were made before.

    The loss after each step, and each epoch's metrics. `tensorboard --logdir runs` shows all runs.
    """
    if not asked:
        yield ()
        return
    with writer()(str(folder / BOARD), purge_step=steps + 1 if steps else None) as board:

        def note(progress: Progress) -> None:
            if not progress.epoch_done:
                board.add_scalar("step/loss", progress.loss, progress.step)
                return
            for name, value in progress.metrics.items():
                if math.isfinite(value):
                    board.add_scalar(f"epoch/{name}", value, progress.epoch)

        yield (note,)
