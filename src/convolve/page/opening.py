"""A subject for the page, and the page opened in a browser."""

from __future__ import annotations

import importlib
import math
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from types import ModuleType

import numpy as np

from convolve.data.arrays import as_images, as_labels
from convolve.errors import ConvolveError
from convolve.graph import Shape
from convolve.network import Network
from convolve.page import PORT
from convolve.page.export import as_file
from convolve.page.session import Subject
from convolve.page.watch import Watched
from convolve.storage import write

MADE_UP = "A picture made up for the page"
"""Where a sample is from that nobody gave."""


def subject(
    network: Network,
    title: str,
    classes: Sequence[str] | None = None,
    x: object = None,
    y: object = None,
    source: str = "",
    file: Path | None = None,
    watched: Watched | None = None,
    other: Network | None = None,
    other_title: str = "",
) -> Subject:
    """What is looked into: a network, and samples (one alone, or a batch) with their labels.

    Raises:
        ConvolveError: the net takes several inputs.
        ShapeError, DataError: the samples do not suit it.
    """
    if len(network.ports) != 1:
        names = ", ".join(port.name for port in network.ports)
        raise ConvolveError(f"{title}: the page shows nets with one input. This one takes {names}")
    shape = network.input_shape
    named = tuple(classes) if classes is not None else None
    labels = None
    if x is None:
        samples, source = stand_in(shape), source or MADE_UP
    else:
        given = np.asarray(x)
        samples = as_images(given[None] if given.shape in (shape, shape[:-1]) else given, shape)
        labels = None if y is None else as_labels(np.atleast_1d(np.asarray(y)), len(samples), 1 << 16)
    return Subject(network, title, named, samples, labels, source, file, watched, other, other_title)


def stand_in(shape: Shape) -> np.ndarray:
    """A sample where there are none, in bytes: rings that grow finer from the middle outwards.

    >>> stand_in((9, 9, 1)).shape
    (1, 9, 9, 1)
    """
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape[:-1]]
    distance = np.asarray(sum((a**2 for a in np.meshgrid(*axes, indexing="ij")), np.zeros(())))
    tint = np.linspace(0, 1, shape[-1] + 1)[:-1]
    rings = np.cos(2 * np.pi * (3 * distance[..., None] + tint))
    return np.asarray(127.5 * (1 + rings), np.uint8)[None]


def open_page(shown: Subject, port: int = PORT, browser: bool = True, said: Callable[[str], object] = print) -> None:
    """Serve the page until its last tab is closed, or Ctrl-C.

    Args:
        shown: what is looked into.
        port: where to begin the search for one that is free.
        browser: whether to open the address in the browser; it is said in any case.
        said: is given the address in a sentence.

    Raises:
        ConvolveError: an extra is missing; the message is the line that installs it.
    """
    _server().Serving(shown, port).run(_opened(shown, browser, said, "  (close the tab or press Ctrl-C to end)"))
    shown.studies.end()


@contextmanager
def page_beside(shown: Subject, browser: bool = True, said: Callable[[str], object] = print) -> Iterator[None]:
    """As `open_page`, while something else is done: it ends with the block.

    Raises:
        ConvolveError: an extra is missing; the message is the line that installs it.
    """
    serving = _server().Serving(shown, grace=math.inf)
    thread = threading.Thread(target=serving.run, args=(_opened(shown, browser, said),))
    thread.start()
    try:
        yield
    finally:
        serving.end()
        thread.join()
        shown.studies.end()


def _opened(shown: Subject, browser: bool, said: Callable[[str], object], ends: str = "") -> Callable[[str], None]:
    """What is done once the page's address is known."""

    def opened(address: str) -> None:
        said(f"{shown.title} at {address}{ends}")
        if browser:
            webbrowser.open(address)

    return opened


def _server() -> ModuleType:
    try:
        return importlib.import_module("convolve.page.server")
    except ImportError:
        raise ConvolveError("the page needs a server: pip install 'convolve[look]'") from None


def write_page(shown: Subject, path: str | Path) -> None:
    """Write the page for the first sample as one HTML file that works offline, whole or not at all.

    Raises:
        FileError: it cannot be written; what was there before is unchanged.
    """
    write(path, as_file(shown).encode())


@dataclass(frozen=True)
class Framed:
    """The page inside a notebook: it holds everything, and asks nobody."""

    page: str

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{escape(self.page)}" style="width: 100%; height: 48rem; border: 0"></iframe>'


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this, which shows what it is given rather than opening windows."""
    shell = sys.modules.get("IPython")
    return shell is not None and "IPKernelApp" in getattr(shell.get_ipython(), "config", {})
