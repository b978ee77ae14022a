"""Training as people watch it: a line an epoch, and below them a bar where there is a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from convolve.cli.output import Output, duration, percent
from convolve.training.fit import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn, TaskID

    from convolve.cli.tasks import Column

LINES_APART = 3.0
"""Seconds between lines where no one watches (a log, a pipe); the first and the last epoch always have theirs."""
REDRAWS_APART = 0.1


class Display:
    """A callback for `fit`, and a context that leaves the terminal as it was."""

    def __init__(self, output: Output, batch_size: int, columns: Sequence[Column]) -> None:
        self.output, self.batch_size, self.columns = output, batch_size, columns
        self._bar = _training_bar(output) if output.animated else None
        self._first: tuple[int, float] | None = None
        self._speed = self._drawn = self._said = 0.0

    def __enter__(self) -> Display:
        self.output.say(_columns("epoch", "loss", [column.head for column in self.columns], "images/s", "time"))
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("", total=None, state="preparing")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        now = time.perf_counter()
        if progress.epoch_done:
            self._first = None
            self._say(progress, now)
            return
        self._measure(progress, now)
        if self._bar and now - self._drawn >= REDRAWS_APART:
            self._drawn = now
            self._bar.update(
                self._task,
                description=f"epoch {progress.epoch}/{progress.epochs}",
                total=progress.steps,
                completed=progress.step,
                state=self._state(progress),
            )

    def _measure(self, progress: Progress, now: float) -> None:
        """Images a second in this epoch, without its first and its last step, which may have had to compile."""
        if self._first is None:
            self._first = progress.step, now
        elif progress.step % (progress.steps // progress.epochs):
            step, began = self._first
            self._speed = (progress.step - step) * self.batch_size / (now - began)

    def _state(self, progress: Progress) -> str:
        parts = [f"loss {_loss(progress.loss)}"]
        if progress.accuracy is not None:
            parts.append(percent(progress.accuracy))
        if self._speed:
            left = (progress.steps - progress.step) * self.batch_size / self._speed
            parts += [f"{self._speed:,.0f} images/s", f"{round(left) // 60}:{round(left) % 60:02} left"]
        return "  ".join(parts)

    def _say(self, progress: Progress, now: float) -> None:
        framing = progress.epoch in (1, progress.epochs)
        if not self._bar and not framing and now - self._said < LINES_APART:
            return
        self._said = now
        metrics = progress.metrics
        line = _columns(
            f"{progress.epoch}/{progress.epochs}",
            _loss(metrics["loss"]),
            [format(metrics[column.key], column.form) for column in self.columns],
            f"{self._speed:,.0f}" if self._speed else "",
            duration(metrics["seconds"]),
        )
        if self._bar:
            self._bar.console.print(line, markup=False)
        else:
            self.output.say(line)


def _columns(epoch: str, loss: str, metrics: Sequence[str], speed: str, seconds: str) -> str:
    first, second = metrics
    return f"{epoch:<7}  {loss:>7}  {first:>10}  {second:>10}  {speed:>9}  {seconds:>10}"


def _loss(value: float) -> str:
    """
    >>> _loss(0.12345), _loss(123456.7)
    ('0.1235', '1.235e+05')
    """
    return f"{value:.4f}" if value < 1000 else f"{value:.4g}"


def _training_bar(output: Output) -> Bar:
    from rich.progress import TextColumn

    return _bar(output, TextColumn("{task.fields[state]}", markup=False))


def _download_bar(output: Output) -> Bar:
    from rich.progress import DownloadColumn, TimeRemainingColumn

    return _bar(output, DownloadColumn(), TimeRemainingColumn())


def _bar(output: Output, *columns: ProgressColumn) -> Bar:
    """A bar between a description and `columns`; it goes when it is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    description = TextColumn("{task.description}", markup=False)
    console = Console(file=output.stream, highlight=False)
    return Progress(description, BarColumn(bar_width=None), *columns, console=console, transient=True, expand=True)


@contextmanager
def counted(output: Output, what: str, total: int) -> Iterator[Callable[[int], object]]:
    """A bar for steps, where there is a terminal, and what is called with their number as they are made."""
    if not output.animated:
        yield int
        return
    with _bar(output) as bar:
        task = bar.add_task(what, total=total)
        yield lambda step: bar.update(task, completed=step)


class Downloads:
    """A callback for `data.load`, and a context: a bar for each file that comes over the network, or a line."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._tasks: dict[str, TaskID] = {}
        self._said: set[str] = set()
        self._bar = _download_bar(output) if output.animated else None

    def __enter__(self) -> Downloads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, name: str, done: int, total: int) -> None:
        if self._bar:
            if name not in self._tasks:
                self._bar.start()
                self._tasks[name] = self._bar.add_task(name)
            self._bar.update(self._tasks[name], completed=done, total=total or None)
        elif name not in self._said:
            self._said.add(name)
            self.output.say(f"downloading {name}" + (f", {total / 1e6:,.0f} MB" if total else ""))
