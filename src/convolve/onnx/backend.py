"""convolve as a backend for ONNX's own tests: `onnx.backend.base.Backend`.

>>> import onnx
>>> from convolve.onnx import backend
>>> backend.supports_device("CPU")
True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx.backend.base import Backend, BackendRep

from convolve.layers import Port
from convolve.network import Network
from convolve.onnx.reading import Reading, read


class ConvolveRep(BackendRep):
    """A model ready to run."""

    def __init__(self, found: Reading) -> None:
        self._found = found
        self._network: Network | None = None

    def run(self, inputs: Any, **kwargs: Any) -> tuple[np.ndarray, ...]:
        """The outputs, in the file's order, for arrays in the order of the inputs or by their names."""
        ports = self._found.net.inputs
        given = [inputs[p.name] for p in ports] if isinstance(inputs, Mapping) else list(inputs)
        arrays = [_canonical(np.asarray(x), port) for port, x in zip(ports, given, strict=True)]
        if self._network is None:
            # Which arrays there are may depend on inputs that shapes are made of.
            self._network = Network(self._found.net, None, arrays=self._found.laid_out, first=arrays)
        made = self._network.predict(*arrays)
        return tuple(made[p.name] for p in self._found.net.outputs)


def _canonical(x: np.ndarray, port: Port) -> np.ndarray:
    """An array as a program takes it: float32 or uint8; of its own type where the program is made of its elements."""
    dtype = x.dtype if port.fixed or x.dtype == np.uint8 else np.float32
    return np.require(x, dtype, ["C", "A"])


class ConvolveBackend(Backend):
    """ONNX's interface to what runs its models."""

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> ConvolveRep:
        """A model ready to run.

        Raises:
            FileError: the model has what is not known; the message lists it.
        """
        return ConvolveRep(read(model.SerializeToString()))

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device == "CPU"


prepare = ConvolveBackend.prepare
run_model = ConvolveBackend.run_model
run_node = ConvolveBackend.run_node
supports_device = ConvolveBackend.supports_device

__all__: Sequence[str] = ("ConvolveBackend", "ConvolveRep", "prepare", "run_model", "run_node", "supports_device")
