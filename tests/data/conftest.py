"""What the tests of the data room share."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: NDArray[Any]) -> bytes:
    """An array as an IDX file holds it."""
    code = IDX_CODES[array.dtype.str[1:]]
    return (
        bytes([0, 0, code, array.ndim])
        + np.array(array.shape, ">u4").tobytes()
        + array.astype(f">{array.dtype.str[1:]}").tobytes()
    )


@pytest.fixture(scope="session")
def as_idx() -> Callable[[NDArray[Any]], bytes]:
    """Array to IDX bytes."""
    return idx_bytes


@pytest.fixture(scope="session")
def write_idx() -> Callable[[Path, NDArray[Any]], Path]:
    """Writes an array as IDX, gzipped if the name ends so."""

    def write(path: Path, array: NDArray[Any]) -> Path:
        data = idx_bytes(array)
        path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
        return path

    return write


@pytest.fixture
def shared_data() -> Path:
    """The real sets that lie beside a developer's checkout."""
    path = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no shared data beside this checkout")
    return path
