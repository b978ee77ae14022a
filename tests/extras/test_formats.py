"""FLAC and NIfTI, which need extras."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convolve import data
from convolve.data.kinds import read_array
from convolve.data.waves import read_wave
from convolve.errors import FileError

RANDOM = np.random.default_rng(0)


def test_flac_is_read_as_wav_is(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    for kind in ("high", "low"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for i in range(4):
            signal = RANDOM.integers(-20_000, 20_000, (800, 2)).astype(np.int16)
            soundfile.write(tmp_path / "set" / kind / f"{i}.flac", signal, 8000, subtype="PCM_16")
            soundfile.write(tmp_path / f"{i}.wav", signal, 8000, subtype="PCM_16")
    found = data.load(tmp_path / "set")
    assert (found.input_shape, found.rate, found.classes) == ((800, 2), 8000, ("high", "low"))
    np.testing.assert_array_equal(
        read_wave(tmp_path / "set" / "low" / "3.flac", 8000, 800, 2), read_wave(tmp_path / "3.wav", 8000, 800, 2)
    )
    whole = (tmp_path / "set" / "low" / "3.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[:30])
    with pytest.raises(FileError, match=r"cut\.flac: the FLAC file is truncated or damaged"):
        read_wave(tmp_path / "cut.flac", 8000, 800)


def test_nifti_volumes_and_their_masks(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    volumes = RANDOM.random((5, 8, 8, 8)).astype(np.float32)
    for i, volume in enumerate(volumes):
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "images" / f"{i}.nii.gz")
        nibabel.save(
            nibabel.Nifti1Image((volume > 0.5).astype(np.float32), np.eye(4)), tmp_path / "masks" / f"{i}.nii.gz"
        )
    found = data.load(tmp_path)
    assert (found.task, found.classes, found.input_shape) == ("segment", ("0", "1"), (8, 8, 8, 1))
    for name, x, y in zip(found.train_files, found.x_train, found.y_train, strict=True):  # type: ignore[arg-type]
        volume = volumes[int(Path(name).name[0])]
        np.testing.assert_array_equal(x[..., 0], volume)
        np.testing.assert_array_equal(y, volume > 0.5)
    whole = (tmp_path / "images" / "1.nii.gz").read_bytes()
    for name, content in (("cut.nii.gz", whole[:200]), ("none.nii", b"nothing")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileError, match=f"{name}: cannot be read as a NIfTI file"):
            read_array(tmp_path / name)
