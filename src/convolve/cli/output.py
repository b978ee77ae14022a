"""Where a command's words go, and how numbers are written."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import click


@dataclass(frozen=True)
class Output:
    """For people, unless JSON is asked for: then what is for people goes to stderr, so that stdout holds JSON alone."""

    quiet: bool = False
    json: bool = False

    @property
    def stream(self) -> TextIO:
        return sys.stderr if self.json else sys.stdout

    @property
    def animated(self) -> bool:
        """Whether there is a terminal that can redraw a line."""
        return not self.quiet and self.stream.isatty() and os.environ.get("TERM") != "dumb"

    def say(self, text: object = "") -> None:
        """Print for people, unless they asked for quiet."""
        if not self.quiet:
            click.echo(str(text), self.stream)

    def head(self, text: str) -> None:
        """Print a heading: bold on a terminal, a line apart from what stands above and below it."""
        plain = not self.animated or bool(os.environ.get("NO_COLOR"))
        self.say(f"\n{text if plain else click.style(text, bold=True)}\n")

    def result(self, text: object) -> None:
        """Print what was asked for."""
        click.echo(str(text), self.stream)

    def give(self, value: Any) -> None:
        """Print a result as JSON."""
        click.echo(as_json(value))


def as_json(value: Any) -> str:
    """JSON as the standard has it: a number that is not finite becomes null.

    >>> as_json({"loss": float("nan"), "shape": (28, 28)})
    '{"loss": null, "shape": [28, 28]}'
    """
    return json.dumps(finite(value), allow_nan=False, ensure_ascii=False)


def finite(value: Any) -> Any:
    """The same, with None for numbers that are not finite: JSON has no others."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def percent(part: float) -> str:
    """
    >>> percent(0.9931)
    '99.31%'
    """
    return f"{part:.2%}"


def duration(seconds: float) -> str:
    """
    >>> duration(0.42), duration(52.4), duration(3700)
    ('0.4 s', '52 s', '61 min 40 s')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def count(number: int, thing: str) -> str:
    """
    >>> count(1, "epoch"), count(60000, "image")
    ('1 epoch', '60,000 images')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """A name from a file or a folder, without characters that move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)


def meant(wrong: str, names: Sequence[str]) -> str:
    """A question about near names, or nothing.

    >>> meant("resnt20", ["lenet5", "resnet20"])
    ' Did you mean resnet20?'
    """
    import difflib

    near = difflib.get_close_matches(wrong, names)
    return f" Did you mean {' or '.join(near)}?" if near else ""
