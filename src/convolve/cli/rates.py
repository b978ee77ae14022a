"""`convolve train --find-lr`: a range test, shown and written, and no run."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

from convolve import storage
from convolve.cli.output import Output, count
from convolve.cli.progress import counted
from convolve.errors import FileError
from convolve.training.range_test import STEPS, RangeTest
from convolve.view.rates import rate_chart, rate_curve


def find_rate(
    test: Callable[[Callable[[int], object]], RangeTest], title: str, given: float, out: Path, output: Output
) -> None:
    """Make the test, print its curve and what it suggests, and write it.

    Args:
        test: makes it; takes what is to be called after each step.
        title: of the picture.
        given: the rate that training would take.
        out: the files' path, without a suffix.
    """
    output.head(f"{title}: rates that grow over {count(STEPS, 'step')}")
    with counted(output, "range test", STEPS) as done:
        found = test(done)
    svg, table = out.with_name(f"{out.name}.svg"), out.with_name(f"{out.name}.csv")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"--out {out.parent}: cannot be made ({error.strerror}); choose another folder") from None
    storage.write(svg, rate_curve(found.rates, found.smoothed, found.suggested, title).encode())
    storage.write(table, _as_csv(found).encode())
    if output.json:
        output.give({"suggested": found.suggested, **_series(found), "files": [str(svg), str(table)]})
    elif output.quiet:
        output.result(f"{found.suggested:g}")
    else:
        output.say(rate_chart(found.rates, found.smoothed, found.suggested))
        output.say("smoothed loss over the learning rate; the column of | is the rate that is suggested\n")
        output.say(f"suggested: --rate {found.suggested:g}  (without --rate, training takes {given:.3g})")
        output.say(f"a third of the rate where nine tenths of the way down are made; written to {svg} and {table}")


def _series(found: RangeTest) -> dict[str, list[float]]:
    return {"rate": found.rates, "loss": found.losses, "smoothed": found.smoothed}


def _as_csv(found: RangeTest) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    series = _series(found)
    writer.writerow(series)
    writer.writerows(zip(*series.values(), strict=True))
    return file.getvalue()
