"""A model as notebooks show it: a table without scripts, everything escaped."""

from __future__ import annotations

from html import escape

from convolve.view.summary import Summary
from convolve.view.text import amount, by

OPEN = 24
"""Layers up to which the table is open at once."""
HEADS = ("layer", "", "output", "parameters", "multiply-adds", "sees")
LEFT, RIGHT = 'style="text-align:left"', 'style="text-align:right"'


def table_of(summary: Summary, title: str) -> str:
    """The layers of a net as an HTML table under its title, closed where there are many.

    >>> from convolve import Conv, Model
    >>> "28 x 28 x 8" in table_of(Model(Conv(8, 3), input_shape=(28, 28, 1)).summary(), "a model")
    True
    """
    lines = [
        "<tr>"
        + "".join(f'<th scope="col" {LEFT if i < 2 else RIGHT}>{head}</th>' for i, head in enumerate(HEADS))
        + "</tr>"
    ]
    for row in summary.rows:
        name = f'<span style="padding-left:{row.depth}em">{escape(row.path)}</span>'
        numbers = (by(row.output_shape), amount(row.parameters), amount(row.multiply_adds), by(row.receptive_field))
        cells = [f'<th scope="row" style="text-align:left;font-weight:normal">{name}</th>']
        cells += [f"<td {LEFT}>{escape(row.kind)}</td>", *(f"<td {RIGHT}>{escape(cell)}</td>" for cell in numbers)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    shown = " open" if len(summary.rows) <= OPEN else ""
    head = (
        f"<strong>{escape(title)}</strong> {by(summary.input_shape)}, {len(summary.rows)} layers, "
        f"{summary.parameters:,} parameters, {summary.multiply_adds:,} multiply-adds a sample"
    )
    table = f"<table>\n{chr(10).join(lines)}\n</table>"
    return f"<details{shown}><summary>{head}</summary>\n{table}\n</details>"
