"""The page as one file: what it would ask, asked beforehand, and every answer in it. It works offline."""

from __future__ import annotations

import gzip
import json
import math
import re
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import numpy as np

from convolve.errors import ConvolveError
from convolve.page.assets import IMPORTS, static
from convolve.page.message import ALIGNED, Message
from convolve.page.outline import Node
from convolve.page.session import MAP, MOST_MAPS, Session, Subject

SMALL = 1_500_000
"""Activations up to which a file holds every number; of larger nets it holds pictures of some maps."""
FEW_MAPS, SMALL_MAP = 12, 32
"""How many, and positions along each dimension of one."""
PIXELS_BYTES = 1 << 22
"""What the explained values of one layer may take."""
MOST_HEATED = 10
"""Classes up to which the file says of each where it comes from."""
POLICY = "default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; img-src data: blob:"


START = '<script type="module">import "page/main.js";</script>'


def as_file(subject: Subject) -> str:
    """The page for the subject's first sample as HTML that loads nothing.

    Of a net with few activations it holds all numbers, and what is behind each value of each layer's strongest map,
    and behind the strongest value of the others; of a large one, pictures of the first maps.
    """
    files = {name: content.decode() for name, content in static().items()}
    modules = {
        f"page/{name}": f"data:text/javascript;base64,{b64encode(text.encode()).decode()}"
        for name, text in files.items()
        if name.endswith(".js")
    }
    data = b64encode(gzip.compress(b"".join(_recorded(subject)), 6, mtime=0)).decode()
    page = files["index.html"]
    page = page.replace(
        "<meta charset", f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<meta charset'
    )
    page = page.replace('<link rel="stylesheet" href="page.css">', f"<style>\n{files['page.css']}</style>")
    page = re.sub(IMPORTS, lambda _: f'<script type="importmap">{json.dumps({"imports": modules})}</script>', page)
    page = page.replace('<script type="module" src="main.js"></script>\n', "")
    start = f'<script type="text/plain" id="recorded">{data}</script>\n{START}\n</body>'
    return page.replace("</body>", start)


def _recorded(subject: Subject) -> Iterator[bytes]:
    """Answers, each behind its length and aligned; in their headers stands what was asked."""
    session = Session(subject)

    def told(header: dict[str, Any], key: dict[str, Any] | None = None) -> bytes:
        answer = session.answer(Message(header))
        if "error" in answer.header:
            raise ConvolveError(answer.header["error"])
        asked = json.dumps(key or header, sort_keys=True, separators=(",", ":"))
        data = Message(answer.header | {"asked": asked}, answer.arrays).pack()
        data += bytes(-len(data) % ALIGNED)
        return len(data).to_bytes(ALIGNED, "little") + data

    sizes = sum(math.prod(node.shape) for node in subject.nodes)
    large = sizes > SMALL
    yield told({"ask": "net"})
    yield told({"ask": "look", "sample": 0})
    yield told({"ask": "samples", "from": 0, "most": 1}, {"ask": "samples", "from": 0})
    if subject.watched is not None:
        yield told({"ask": "training"})
        for epoch in range(len(subject.watched.moments)):
            yield told({"ask": "moment", "epoch": epoch})
    for place, node in enumerate(subject.nodes):
        yield told({"ask": "thumbnails", "nodes": [place], "depth": 0.5})
        yield from _layers(told, place, large)
        if not large:
            yield from _values(told, session, place, node)
    classes = subject.network.output_shape[-1] if len(subject.network.output_shape) == 1 else 0
    best = session.answer(Message({"ask": "look", "sample": 0})).header.get("best", 0)
    for target in range(classes) if classes <= MOST_HEATED and not large else (best,):
        for method in ("grad_cam", "occlusion"):
            try:
                yield told({"ask": "heat", "method": method, "target": target})
            except ConvolveError:  # there is none of a net without positions
                continue


def _layers(told: Any, place: int, large: bool) -> Iterator[bytes]:
    key = {"ask": "layer", "node": place, "from": 0, "depth": 0.5}
    size = {"most": FEW_MAPS, "size": SMALL_MAP} if large else {"most": MOST_MAPS, "size": MAP}
    for order in ("index",) if large else ("index", "strength", "similarity"):
        yield told(key | size | {"order": order}, key | {"order": order})


def _values(told: Any, session: Session, place: int, node: Node) -> Iterator[bytes]:
    """Every map, and what is behind values: all of the strongest map, the strongest of all others."""
    maps = session.maps(node, {"depth": 0.5})
    strongest = int(np.nanmean(np.abs(maps).reshape(-1, maps.shape[-1]), 0).argmax())
    for channel in range(maps.shape[-1]):
        yield told({"ask": "map", "node": place, "channel": channel, "depth": 0.5})
    room = PIXELS_BYTES
    for position in _positions(node, maps, strongest):
        made = told({"ask": "pixel", "node": place, "position": position})
        room -= len(made)
        if room < 0:
            break
        yield made


def _positions(node: Node, maps: np.ndarray, strongest: int) -> Iterator[list[int]]:
    if len(node.shape) == 1:
        yield from ([unit] for unit in range(node.shape[0]))
        return
    outer = [int(0.5 * (n - 1) + 0.5) for n in node.shape[:-3]]
    inner = maps.shape[:-1]
    for channel in range(maps.shape[-1]):
        best = np.unravel_index(int(np.nanargmax(maps[..., channel])), inner)
        yield [*outer, *map(int, best), channel]
    yield from ([*outer, *at, strongest] for at in np.ndindex(inner))
