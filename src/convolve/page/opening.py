"""The page opened in a browser, written to a file, or put into a notebook."""

from __future__ import annotations

import importlib
import math
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from types import ModuleType

from convolve.errors import ConvolveError
from convolve.page import PORT
from convolve.page.export import as_file
from convolve.page.subject import Subject
from convolve.storage import write


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
