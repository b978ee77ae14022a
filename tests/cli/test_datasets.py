"""`convolve datasets DATA`, `--strict` and `--views`."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convolve import Dense, Flatten, Model, Sequential
from convolve.cli.app import FAILED, run
from convolve.cli.find import find_model
from convolve.data import load
from convolve.data.dataset import Dataset
from convolve.data.inspection import contact_sheet


def filled(root: Path) -> Path:
    """Two classes, of which one has a broken file, a pair that is alike, and a picture of the test part."""
    random = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(count if name == "cat" else 1):
                picture = Image.fromarray(random.integers(0, 256, (9, 7, 3), np.uint8))
                picture.save(root / part / name / f"{i}.png")
    picture.save(root / "train" / "cat" / "again.png")
    (root / "train" / "cat" / "broken.png").write_bytes(b"nothing")
    return root


def test_what_a_set_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = filled(tmp_path / "pets")
    sheet = tmp_path / "sheet.png"
    assert run(["datasets", str(root), "--sheet", str(sheet)]) == 0
    said = capsys.readouterr().out
    assert "pets: 8 training and 3 test images, 9x7x3, 2 classes" in said
    assert "unbalanced: the largest class has 7.0 times as many samples as the smallest" in said
    assert "1 sample in two parts, 0 samples within one; 1 of them with another class" in said
    assert "train/cat/again.png = test/dog/0.png  (another class)" in said
    assert "left out, as they cannot be read: 1 file" in said
    assert "broken.png: not an image" in said
    with Image.open(sheet) as picture:
        assert picture.width > 500
    assert run(["datasets", str(root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == {"train": 8, "test": 3}
    assert found["classes"] == [{"class": "cat", "train": 7, "test": 2}, {"class": "dog", "train": 1, "test": 1}]
    assert found["skipped"][0]["file"] == "train/cat/broken.png"
    assert run(["datasets", str(root), "--quiet"]) == 0
    assert capsys.readouterr().out == "pets: 8 training and 3 test images, 9x7x3, 2 classes\n".removeprefix("pets: ")


def test_strict_stops_and_a_sheet_is_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = filled(tmp_path / "pets")
    for command in (["datasets", str(root)], ["train", str(root), "--out", str(tmp_path / "run")]):
        assert run([*command, "--strict"]) == FAILED
        assert "broken.png: not an image" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert run(["datasets", str(root), "--sheet", str(tmp_path / "sheet.txt")]) == FAILED
    assert "expected a name that ends in .png" in capsys.readouterr().err
    assert not (tmp_path / "sheet.txt").exists()


@pytest.mark.parametrize("shape", [(40, 2), (6, 5, 1), (300, 200, 3), (4, 6, 8, 1)])
def test_sheets_of_every_rank(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    sheet = contact_sheet(Dataset("any", x, [0, 1, 0, 1, 0, 0], None, None, ("one", "two ✓")), columns=3)
    pixels = np.asarray(sheet)
    assert pixels.std() > 10
    assert max(sheet.size) < 1000


def test_evaluation_over_views(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = filled(tmp_path / "pets")
    model = Model(Sequential(Flatten(), Dense(2)), (9, 7, 3), classes=("cat", "dog"))
    model.save(tmp_path / "model.safetensors")
    losses = []
    for views in ([], ["--views", "flip"], ["--views", "flip,shift"]):
        assert run(["evaluate", str(tmp_path / "model.safetensors"), str(root), "--json", *views]) == 0
        losses.append(json.loads(capsys.readouterr().out)["loss"])
    assert len(set(losses)) == 3
    data = load(root)
    from convolve.augment import Flip

    np.testing.assert_allclose(losses[1], model.evaluate(data.x_test, data.y_test, augment=[Flip()])["loss"], rtol=1e-4)
    assert run(["predict", str(tmp_path / "model.safetensors"), str(root / "test/cat/0.png"), "--views", "flip"]) == 0
    assert run(["evaluate", str(tmp_path / "model.safetensors"), str(root), "--views", "turn"]) == FAILED
    assert "--views turn: expected flip, flip-vertical, shift" in capsys.readouterr().err


def test_a_set_that_memory_does_not_hold_trains_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "photos"
    random = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 120)):
        (root / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(random.integers(low, low + 130, (12, 12, 3), np.uint8)).save(root / name / f"{i}.png")
    command = ["train", str(root), "--alone", "--net", "mlp", "--epochs", "2", "--batch-size", "8", "--out"]
    assert run([*command, str(tmp_path / "whole")]) == 0
    monkeypatch.setattr("convolve.data.folder._memory", lambda: 1000)
    assert run([*command, str(tmp_path / "late")]) == 0
    assert "% of that it waited for data" in capsys.readouterr().out
    made = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "late")]
    assert made[0] == made[1]
    assert run([*command, str(tmp_path / "small"), "--size", "6"]) == 0
    assert find_model(str(tmp_path / "small")).model.input_shape == (6, 6, 3)
    capsys.readouterr()
    assert run(["train", "mnist", "--size", "6", "--out", str(tmp_path / "none")]) == FAILED
    assert "--size 6: only files in folders are resized, not mnist" in capsys.readouterr().err


def test_sounds_and_volumes_from_folder_to_prediction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, waves = tmp_path / "volumes", tmp_path / "sounds"
    random = np.random.default_rng(0)
    for label, name in enumerate(("low", "high")):
        (root / name).mkdir(parents=True)
        (waves / name).mkdir(parents=True)
        for i in range(12):
            np.save(root / name / f"{i}.npy", random.normal(label * 4, 1, (4, 5, 6)))
            tone = np.sin(np.arange(400) * (0.2 + label) + random.uniform(0, 6)) * 9000
            with wave.open(str(waves / name / f"{i}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(8000)
                file.writeframes(tone.astype("<i2").tobytes())
    for folder, suffix in ((root, "npy"), (waves, "wav")):
        out = str(tmp_path / f"run-{suffix}")
        command = ["train", str(folder), "--alone", "--net", "mlp", "--epochs", "2", "--batch-size", "8", "--out", out]
        assert run([*command, "--quiet"]) == 0
        assert run(["predict", out, str(folder / "low" / f"3.{suffix}"), "--quiet"]) == 0
        assert capsys.readouterr().out.strip().splitlines()[-1] in ("low", "high")
    assert find_model(str(tmp_path / "run-wav")).rate == 8000
    Image.new("L", (5, 5)).save(tmp_path / "a.png")
    assert run(["predict", str(tmp_path / "run-wav"), str(tmp_path / "a.png")]) == FAILED
    assert "numbers of a scale that image files (0 to 255) do not have" in capsys.readouterr().err
    assert run(["predict", str(tmp_path / "run-npy"), str(waves / "low" / "3.wav")]) == FAILED
    assert "3.wav: a file that ends in .wav cannot become an input of shape (4, 5, 6, 1)" in capsys.readouterr().err
