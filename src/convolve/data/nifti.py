"""NIfTI files, as scanners and their programs save volumes, by nibabel."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convolve.errors import FileError

SUFFIXES = (".nii", ".nii.gz")
MOST = 2**31
"""Voxels that a volume may have."""


def suffix_of(path: Path) -> str:
    """What a file's kind is known by: its suffix in lower case, of a packed NIfTI file both.

    >>> suffix_of(Path("a.JPG")), suffix_of(Path("head.nii.gz"))
    ('.jpg', '.nii.gz')
    """
    return SUFFIXES[1] if path.name.lower().endswith(SUFFIXES[1]) else path.suffix.lower()


def read_nifti(path: Path) -> NDArray[Any]:
    """The voxels as they are stored, along the file's own axes, scaled as its header says: uint8, or float32.

    Volumes are (x, y, z), those of several measurements (x, y, z, channels). Orientation and spacing are not looked
    at: bring scans of several origins to one grid first.

    Raises:
        FileError: the file is missing or damaged, or nibabel is.
    """
    try:
        import nibabel
    except ImportError:
        raise FileError(f"{path}: NIfTI files need nibabel: pip install 'convolve[nifti]'") from None
    faults = (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError)
    try:
        image: Any = nibabel.load(path)  # declared as what has no voxels
        if not 0 < np.prod(image.shape, dtype=np.float64) < MOST:
            raise FileError(f"{path}: has {image.shape} voxels; expected at least one, and fewer than {MOST:,}.")
        voxels = np.asarray(image.dataobj)
    except (*faults, OSError, EOFError, ValueError, zlib.error) as error:
        raise FileError(f"{path}: cannot be read as a NIfTI file ({error}). Get or save it anew.") from error
    return voxels if voxels.dtype == np.uint8 else voxels.astype(np.float32)
