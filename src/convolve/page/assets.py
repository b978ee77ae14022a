"""The page's own files, as they lie in the package."""

from __future__ import annotations

from importlib import resources

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
IMPORTS = r'<script type="importmap">(.*?)</script>'
"""The one script within the page: it says where its modules are."""
LIBRARY = "d3-"
"""How the modules of the drawing library begin, which are imported by name."""


def static() -> dict[str, bytes]:
    """The page's files by name."""
    folder = resources.files("convolve.page") / "static"
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.name.rpartition(".")[2] in TYPES}
