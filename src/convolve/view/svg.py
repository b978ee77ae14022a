"""SVG elements, escaped: what pictures that stand alone are written with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

INK, PALE, GRID = "#222222", "#666666", "#dddddd"
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
"""Colours that colour-blind eyes tell apart (Okabe and Ito, 2008)."""


class Markup(str):
    """Text that is SVG already."""

    __slots__ = ()


def element(name: str, attributes: Mapping[str, object], content: str = "") -> Markup:
    """An XML element; its attributes and its content, unless that is `Markup`, are escaped.

    >>> element("text", {"x": 1}, "a < b")
    '<text x="1">a &lt; b</text>'
    """
    written = "".join(f' {key}="{_escaped(str(value))}"' for key, value in attributes.items())
    inner = content if isinstance(content, Markup) else _escaped(content)
    return Markup(f"<{name}{written}>{inner}</{name}>" if inner else f"<{name}{written}/>")


def _escaped(text: str) -> str:
    """Without the characters that XML gives a meaning to, and those that it does not allow."""
    allowed = re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
    return allowed.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def text(
    x: float, y: float, content: str, size: int = 13, anchor: str = "start", colour: str = INK, weight: str = "normal"
) -> str:
    attributes = {"x": f"{x:.1f}", "y": f"{y:.1f}", "font-size": size, "fill": colour}
    placed = attributes | {"text-anchor": anchor, "font-weight": weight}
    return element("text", placed, content)


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.0, dashes: str = "none") -> str:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    return element("line", {**ends, "stroke": colour, "stroke-width": width, "stroke-dasharray": dashes})


def document(width: float, height: float, title: str, description: str, parts: Sequence[str]) -> str:
    """An SVG document on white, with its text alternatives."""
    attributes = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {width:g} {height:g}",
        "width": f"{width:g}",
        "height": f"{height:g}",
        "role": "img",
        "aria-labelledby": "title description",
        "font-family": FONT,
    }
    first = [
        element("title", {"id": "title"}, title),
        element("desc", {"id": "description"}, description),
        element("rect", {"width": f"{width:g}", "height": f"{height:g}", "fill": "#ffffff"}),
    ]
    return element("svg", attributes, Markup("\n" + "\n".join([*first, *parts]) + "\n")) + "\n"
