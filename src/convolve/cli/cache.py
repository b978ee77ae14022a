"""`convolve cache`: the compiled kernels on disk."""

from __future__ import annotations

from convolve.cli.output import Output, count
from convolve.native import disk as kernels


def cache(action: str, quiet: bool, as_json: bool) -> None:
    """Say where the kernels are, what they take, or delete them."""
    output = Output(quiet, as_json)
    folder = kernels.directory()
    size = sum(path.stat().st_size for path in kernels.entries())
    number = kernels.clear() if action == "clear" else len(kernels.entries())
    held = f"{count(number, 'kernel')}, {size / 1e6:.1f} MB"
    if as_json:
        values = {"folder": str(folder), "kernels": number, "bytes": size}
        output.give({"folder": str(folder)} if action == "dir" else values)
    elif action == "dir":
        output.result(folder)
    elif action == "info":
        output.result(f"{folder}: {held}")
    else:
        output.say(f"{folder}: deleted {held}")
