"""Plain-text tables and numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns side by side: the first `left` begin at the left, the others end at the right. Empty columns disappear.

    >>> print(table(("layer", "pads", "size"), [("conv1", "", "72"), ("relu1", "", "")]))
    layer  size
    -----------
    conv1    72
    relu1
    """
    kept = [i for i in range(len(heads)) if any(row[i] for row in rows)]
    widths = {i: max(len(heads[i]), *(len(row[i]) for row in rows)) for i in kept}

    def line(cells: Sequence[str]) -> str:
        parts = (cells[i].ljust(widths[i]) if i < left else cells[i].rjust(widths[i]) for i in kept)
        return "  ".join(parts).rstrip()

    return "\n".join([line(heads), "-" * (sum(widths.values()) + 2 * (len(kept) - 1)), *map(line, rows)])


def amount(number: int) -> str:
    """A count with its thousands apart; nothing for none.

    >>> amount(79400), amount(0)
    ('79,400', '')
    """
    return f"{number:,}" if number else ""


def megabytes(count: int) -> str:
    """
    >>> megabytes(317_600)
    '0.32 MB'
    """
    return f"{count / 1e6:,.2f} MB"


def by(sizes: Sequence[int]) -> str:
    """
    >>> by((28, 28, 1))
    '28 x 28 x 1'
    """
    return " x ".join(map(str, sizes))
