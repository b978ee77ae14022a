"""`convolve export`: a net as an ONNX file."""

from __future__ import annotations

from pathlib import Path

from convolve.cli.find import find_net
from convolve.cli.output import Output
from convolve.onnx.export import DType, Layout


def export(model: str, out: str, opset: int | None, layout: Layout, dtype: DType, quiet: bool, as_json: bool) -> None:
    """Write the file, and say how large it is."""
    output = Output(quiet, as_json)
    found = find_net(model).model
    found.export_onnx(out, opset, layout, dtype)
    size = Path(out).stat().st_size
    if as_json:
        output.give({"file": out, "bytes": size})
    else:
        output.say(f"{out}: {size / 1e6:.1f} MB")
