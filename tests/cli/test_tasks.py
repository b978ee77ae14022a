"""Tasks other than classification: from data to a run, its metrics, and what evaluate and predict say."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.conftest import Convolve, check_equal
from convolve import data, load, metrics

NETS = """\
from convolve import BatchNorm, Conv, Dense, GlobalAvgPool, Normalize, ReLU, Sequential


def one(classes):
    return Sequential(Normalize(0.0, 255.0), Conv(8, 3), BatchNorm(), ReLU(), GlobalAvgPool(), Dense(classes))


def places(classes):
    return Sequential(Normalize(0.0, 255.0), Conv(8, 3), BatchNorm(), ReLU(), Conv(classes, 1))


def back(classes):
    return Sequential(Normalize(0.0, 255.0), Conv(8, 3), BatchNorm(), ReLU(), Conv(3, 1))
"""


@pytest.fixture
def made(here: Path) -> Path:
    """Pictures with a red and a blue half, each there or not: as labels, a value, masks, or nothing."""
    random = np.random.default_rng(0)
    (here / "nets.py").write_text(NETS)
    for folder in ("images", "masks", "flat"):
        (here / "set" / folder).mkdir(parents=True)
    labels, values = [], []
    for i in range(60):
        picture, mask = random.integers(0, 60, (8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
        red, blue = random.integers(0, 2, 2)
        picture[:4, :, 0] += np.uint8(150 * red)
        picture[4:, :, 2] += np.uint8(150 * blue)
        mask[:4], mask[4:] = 100 * red, 200 * blue
        Image.fromarray(picture).save(here / "set" / "images" / f"{i}.png")
        Image.fromarray(mask).save(here / "set" / "masks" / f"{i}.png")
        Image.fromarray(picture).save(here / "set" / "flat" / f"{i}.png")
        name = f"set/images/{i}.png"
        labels.append((name, ";".join(["red"] * red + ["blue"] * blue)))
        values.append((name, f"{1000.5 + 500 * red - 200 * blue}"))
    for file, head, rows in (("labels.csv", "labels", labels), ("values.csv", "value", values)):
        with (here / file).open("w", newline="") as stream:
            csv.writer(stream).writerows([("path", head), *rows])
    return here


LONG = ("--epochs", "30", "--rate", "0.02", "--batch-size", "16")
TASKS = {
    # task: data, net, options, metrics of an epoch
    "labels": ("labels.csv", "one", (), {"accuracy", "f1_micro", "f1_macro", "all_right"}),
    "regress": ("values.csv", "one", (), {"mae", "r2"}),
    "segment": ("set", "places", ("--augment", "flip"), {"accuracy", "iou", "f1_macro"}),
    "autoencode": ("set/flat", "back", ("--task", "autoencode"), {"mae", "r2"}),
}


def expected(task: str, model: Any, found: data.Dataset) -> dict[str, float]:
    """The metrics of the test part, by their definitions."""
    assert found.x_test is not None
    made, y = model.predict(found.x_test), np.asarray(found.y_test)
    if task == "labels":
        names = {"f1_micro": "micro", "f1_macro": "macro"}
        f1 = {key: metrics.f1_score(y.astype(int), (made > 0).astype(int), how) for key, how in names.items()}
        return f1 | {"accuracy": metrics.accuracy(y, made > 0), "all_right": float(np.mean(((made > 0) == y).all(1)))}
    if task == "segment":
        taken = made.argmax(-1)
        iou = float(np.nanmean(metrics.iou(y, taken, 3)))
        return {
            "accuracy": metrics.accuracy(y, taken),
            "iou": iou,
            "f1_macro": metrics.f1_score(y.ravel(), taken.ravel()),
        }
    if task == "autoencode":
        y = np.asarray(found.x_test) / 255
        r2 = metrics.r2_score(y.reshape(-1), made.reshape(-1))
        return {"mae": metrics.mean_absolute_error(y, made), "r2": r2, "loss": metrics.mean_squared_error(y, made)}
    loss = metrics.mean_squared_error(y, made)
    return {"mae": metrics.mean_absolute_error(y, made), "r2": metrics.r2_score(y, made), "loss": loss}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_from_data_to_folder(call: Convolve, made: Path, task: str) -> None:
    given, net, options, names = TASKS[task]
    done = call(
        "train",
        given,
        "--net",
        f"nets.py:{net}",
        "--epochs",
        "30",
        "--rate",
        "0.02",
        "--batch-size",
        "16",
        "--out",
        "run",
        *options,
    )
    assert (done.returncode, done.stderr) == (0, "")
    results = json.loads((made / "run" / "results.json").read_text())
    with (made / "run" / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {f"validation_{name}" for name in names} <= set(rows[0])
    model = load(made / "run" / "model.safetensors")
    found = data.load(made / given, task=task)  # type: ignore[arg-type]
    assert found.task == task
    wanted = expected(task, model, found)
    assert names <= wanted.keys()
    assert {name: results["test"][name] for name in wanted} == pytest.approx(wanted, rel=1e-4)
    assert wanted.get("iou", 1) > 0.5
    assert wanted.get("f1_micro", 1) > 0.8
    assert wanted.get("r2", 1) > 0.5
    page = (made / "run" / "report.html").read_text()
    assert all(words in page for words in ("Curves", "Worst mistakes", "The net", "How it was made"))

    evaluated = json.loads(call("evaluate", "run", given, "--json").stdout)
    assert evaluated["task"] == task
    assert {name: evaluated[name] for name in wanted} == {name: results["test"][name] for name in wanted}
    said = call("evaluate", "run", given).stdout
    assert "60" not in said.splitlines()[0]
    assert {"labels": "red", "regress": "R2", "segment": "IoU", "autoencode": "given back worst"}[task] in said


def test_predictions_of_labels_and_values(call: Convolve, made: Path) -> None:
    files = [f"set/images/{i}.png" for i in range(9)]
    for task, given in (("labels", "labels.csv"), ("regress", "values.csv")):
        options = (
            "--net",
            "nets.py:one",
            "--epochs",
            "30",
            "--rate",
            "0.02",
            "--batch-size",
            "16",
            "--out",
            task,
            "--quiet",
        )
        assert call("train", given, *options).returncode == 0
        found = json.loads(call("predict", task, *files, "--json").stdout)
        with (made / given).open(newline="") as stream:
            truth = dict(list(csv.reader(stream))[1:])
        if task == "labels":
            assert np.mean([set(row["labels"]) == set(truth[row["file"]].split(";")) - {""} for row in found]) > 0.7
            said = call("predict", task, *files).stdout.splitlines()
            assert all(("none" in line) is (not row["labels"]) for line, row in zip(said, found, strict=True))
        else:
            off = [abs(row["values"]["value"] - float(truth[row["file"]])) for row in found]
            assert np.mean(off) < 100
            brief = call("predict", task, *files, "--quiet").stdout.split()
            assert [float(word) for word in brief] == pytest.approx([row["values"]["value"] for row in found], rel=1e-5)
    done = call("predict", "regress", files[0], "--out", "x")
    assert done.returncode == 1
    assert "gives no pictures that could be written" in done.stderr


def test_masks_are_written_as_they_were_given(call: Convolve, made: Path) -> None:
    options = (
        "--net",
        "nets.py:places",
        "--epochs",
        "30",
        "--rate",
        "0.02",
        "--batch-size",
        "16",
        "--out",
        "run",
        "--quiet",
    )
    assert call("train", "set", *options).returncode == 0
    done = call("predict", "run", "set/images/0.png", "set/images/1.png", "--out", "masks", "--json")
    for row in json.loads(done.stdout):
        written = np.asarray(Image.open(made / row["written"]))
        true = np.asarray(Image.open(made / "set" / "masks" / Path(row["file"]).name))
        assert set(np.unique(written)) <= {0, 100, 200}
        assert (written == true).mean() > 0.7
        assert row["shares"]["0"] == pytest.approx((written == 0).mean())


def test_a_stopped_segmentation_goes_on_bit_for_bit(
    call: Convolve, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convolve.cli.run import Run

    options = ("set", "--net", "nets.py:places", "--epochs", "2", "--augment", "flip,shift", "--save-every", "0")
    assert call("train", *options, "--out", "whole", "--threads", "2", "--quiet").returncode == 0
    left, save = [3], Run.save

    def stopping(run: Run, *arguments: Any) -> None:
        save(run, *arguments)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", stopping)
    assert call("train", *options, "--out", "stopped", "--threads", "1", "--quiet").returncode == 130
    assert call("train", "set", "--out", "stopped", "--resume", "--quiet").returncode == 0
    check_equal(made / "stopped", made / "whole")


def test_what_does_not_suit_a_task(call: Convolve, made: Path) -> None:
    for arguments, sentence in (
        (("labels.csv", "--net", "nets.py:places"), "expected (2,), a value a class: end it in Dense(2)"),
        (("set", "--net", "nets.py:one"), "a value a class for each place: end it in Conv(3, 1), or take unet"),
        (("values.csv", "--net", "nets.py:one", "--balanced"), "--task regress has no classes"),
        (("values.csv", "--net", "nets.py:one", "--label-smoothing", "0.1"), "--task regress has no classes"),
        (("values.csv", "--task", "segment"), "a table has no masks"),
        (("values.csv", "--look"), "--look shows who is taken for whom"),
        (("values.csv", "--from", "x.safetensors"), "no such file"),
        (("few.npz", "--task", "segment"), "expected a class for each place"),
    ):
        done = call("train", *arguments, "--quiet")
        assert (done.returncode, done.stdout) == (1, ""), arguments
        assert sentence in done.stderr


def test_the_rule_chooses_a_net_for_each_task(call: Convolve, made: Path) -> None:
    for given, options, net in (
        ("labels.csv", (), "small"),
        ("set", (), "unet"),
        ("set/flat", ("--task", "autoencode"), "autoencoder"),
    ):
        done = call("train", given, *options, "--epochs", "1", "--rate", "0.001", "--out", f"run-{net}")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"Chosen: net {net};" in done.stdout
        assert (made / f"run-{net}" / "results.json").exists()
