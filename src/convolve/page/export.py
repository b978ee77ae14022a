"""The page as one file: what it would ask, asked beforehand, and every answer in it. It works offline."""

from __future__ import annotations

import gzip
import json
import math
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from convolve.errors import ConvolveError
from convolve.page.assets import IMPORTS, LIBRARY, static
from convolve.page.message import ALIGNED, Message
from convolve.page.outline import Node
from convolve.page.recipe import recipe
from convolve.page.session import MAP, MOST_COMPARED, MOST_MAPS, Session
from convolve.page.study import Study
from convolve.page.subject import Subject
from convolve.view.filters import ORDERS

SMALL = 1_500_000
"""Activations up to which a file holds every number; of larger nets it holds pictures of some maps."""
FEW_MAPS, SMALL_MAP = 12, 32
"""How many, and positions along each dimension of one."""
VALUES_BYTES = 1 << 22
"""What the explained values of a layer that has no recipe may take."""
MOST_HEATED = 10
"""Classes up to which the file says of each where it comes from."""
POLICY = "default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; img-src data: blob:"


START = '<script type="module">import "page/main.js";</script>'


SAYS_SMALL = "This file works offline. It holds one picture: for another one, open the model with convolve look."
SAYS_LARGE = (
    "This file works offline. The net is large, so that it holds one picture and small pictures of the first "
    f"{FEW_MAPS} maps of each layer; convolve look shows all maps, and what every value is made of."
)
"""What the page says of its limits."""


def as_file(subject: Subject) -> str:
    """The page for the subject's first sample as HTML that loads nothing.

    Of a net with few activations it holds all numbers, and what is behind each of them: a recipe a layer, or the values
    of each layer's strongest map and the strongest values of the others. Of a large one, pictures of the first maps.
    Measurements that were kept beside the model are in it, and the other checkpoint's filters.
    """
    files = {name: content.decode() for name, content in static().items()}
    modules = {
        _imported(name): f"data:text/javascript;base64,{b64encode(text.encode()).decode()}"
        for name, text in files.items()
        if name.endswith(".js")
    }
    data = b64encode(gzip.compress(b"".join(_Recording(subject).answers()), 6, mtime=0)).decode()
    page = files["index.html"]
    page = page.replace(
        "<meta charset", f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<meta charset'
    )
    page = page.replace('<link rel="stylesheet" href="page.css">', f"<style>\n{files['page.css']}</style>")
    page = re.sub(IMPORTS, lambda _: f'<script type="importmap">{json.dumps({"imports": modules})}</script>', page)
    page = page.replace('<script type="module" src="main.js"></script>\n', "")
    start = f'<script type="text/plain" id="recorded">{data}</script>\n{START}\n</body>'
    return page.replace("</body>", start)


def _imported(name: str) -> str:
    """What modules call a file that they import."""
    return name.removesuffix(".js") if name.startswith(LIBRARY) else f"page/{name}"


class _Recording:
    """Answers, each behind its length and aligned; in their headers stands what was asked."""

    def __init__(self, subject: Subject) -> None:
        self._subject, self._session = subject, Session(subject)
        self._large = sum(math.prod(node.shape) for node in subject.nodes) > SMALL

    def answers(self) -> Iterator[bytes]:
        """All of them. What is asked without a depth is answered for whole volumes."""
        subject = self._subject
        note = " ".join(filter(None, (subject.note, SAYS_LARGE if self._large else SAYS_SMALL)))
        yield self._packed({"ask": "net"}, Message(subject.outline | {"ask": "net", "note": note}))
        yield self._told({"ask": "look", "sample": 0})
        yield self._told({"ask": "samples", "from": 0}, {"most": 1})
        if subject.watched is not None:
            yield self._told({"ask": "training"})
            for epoch in range(len(subject.watched.moments)):
                yield self._told({"ask": "moment", "epoch": epoch})
        for place, node in enumerate(subject.nodes):
            yield self._told({"ask": "thumbnails", "nodes": [place]})
            yield from self._layer(place, node)
            if not self._large:
                yield from self._values(place, node)
        yield from self._heats()

    def _told(self, asked: dict[str, Any], limits: Mapping[str, Any] | None = None) -> bytes:
        """The answer to what the page will ask, kept within limits that it does not know of."""
        answer = self._session.answer(Message(asked | dict(limits or {})))
        if "error" in answer.header:
            raise ConvolveError(answer.header["error"])
        return self._packed(asked, answer)

    def _packed(self, asked: dict[str, Any], answer: Message) -> bytes:
        key = json.dumps(asked, sort_keys=True, separators=(",", ":"))
        data = Message(answer.header | {"asked": key}, answer.arrays).pack()
        data += bytes(-len(data) % ALIGNED)
        return len(data).to_bytes(ALIGNED, "little") + data

    def _layer(self, place: int, node: Node) -> Iterator[bytes]:
        """A layer's maps and filters in each order, beside another checkpoint's, and what excites them."""
        size = {"most": FEW_MAPS, "size": SMALL_MAP} if self._large else {"most": MOST_MAPS, "size": MAP}
        for order in ("index",) if self._large else ORDERS:
            yield self._told({"ask": "layer", "node": place, "from": 0, "order": order}, size)
        if node.path in self._subject.changes:
            count = 1 if self._large else node.shape[-1]
            for start in range(0, count, MOST_COMPARED):
                yield self._told({"ask": "compare", "node": place, "from": start})
        if node.path in self._subject.filtered and (found := self._subject.studies.kept(node.path)) is not None:
            shown = list(range(min(node.shape[-1], FEW_MAPS if self._large else MOST_MAPS)))
            yield self._packed(
                {"ask": "excitation", "node": place}, self._session.excited(place, Study.whole(found), shown)
            )

    def _values(self, place: int, node: Node) -> Iterator[bytes]:
        """Every map, and what is behind each value; or behind all of the strongest map, and the strongest of others."""
        maps = self._session.maps(node, {})
        for channel in range(maps.shape[-1]):
            yield self._told({"ask": "map", "node": place, "channel": channel})
        known = recipe(self._session.traced, node)
        if known is not None:
            header = known.header | {"ask": "recipe", "node": place}
            yield self._packed({"ask": "recipe", "node": place}, Message(header, known.arrays))
            return
        room = VALUES_BYTES
        for position in _positions(node, self._session.traced.results[node.path][0]):
            made = self._told({"ask": "pixel", "node": place, "position": position})
            room -= len(made)
            if room < 0:
                break
            yield made

    def _heats(self) -> Iterator[bytes]:
        """Where an answer comes from: of each class of a few, or of the answer."""
        network = self._subject.network
        classes = network.output_shape[-1] if len(network.output_shape) == 1 else 0
        best = self._session.answer(Message({"ask": "look", "sample": 0})).header.get("best", 0)
        for number in range(len(self._subject.given)):
            which = {"input": number} if number else {}
            for target in range(classes) if classes <= MOST_HEATED and not self._large else (best,):
                for method in ("grad_cam", "occlusion"):
                    try:
                        yield self._told({"ask": "heat", "method": method, "target": target} | which)
                    except ConvolveError:  # there is none of a net without positions
                        continue


def _positions(node: Node, values: np.ndarray) -> Iterator[list[int]]:
    if len(node.shape) == 1:
        yield from ([unit] for unit in range(node.shape[0]))
        return
    spatial = node.shape[:-1]
    flat = values.reshape(-1, node.shape[-1])
    for channel, best in enumerate(flat.argmax(0)):
        yield [*map(int, np.unravel_index(int(best), spatial)), channel]
    strongest = int(np.abs(flat).mean(0).argmax())
    yield from ([*at, strongest] for at in np.ndindex(spatial))
