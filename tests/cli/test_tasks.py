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
from convolve import (
    BatchNorm,
    Conv,
    Dense,
    GlobalAvgPool,
    Model,
    Normalize,
    ReLU,
    Sequential,
    data,
    load,
    metrics,
    storage,
)
from convolve.cli.run import Run
from convolve.cli.start import KEPT
from convolve.data.loader import Loader
from convolve.layers import Layer

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
        *LONG,
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
    beside = {"segment": ("wanted", "given"), "autoencode": ("given back",)}.get(task, ())
    assert page.count("<img") % (1 + len(beside)) == 0
    assert all(
        page.count(f"<figcaption>{words}</figcaption>") * (1 + len(beside)) == page.count("<img") for words in beside
    )

    evaluated = json.loads(call("evaluate", "run", given, "--json").stdout)
    assert evaluated["task"] == task
    assert {name: evaluated[name] for name in wanted} == {name: results["test"][name] for name in wanted}
    said = call("evaluate", "run", given).stdout
    assert "60" not in said.splitlines()[0]
    assert {"labels": "red", "regress": "R2", "segment": "IoU", "autoencode": "given back worst"}[task] in said


def test_predictions_of_labels_and_values(call: Convolve, made: Path) -> None:
    files = [f"set/images/{i}.png" for i in range(9)]
    for task, given in (("labels", "labels.csv"), ("regress", "values.csv")):
        options = ("--net", "nets.py:one", *LONG, "--out", task, "--quiet")
        assert call("train", given, *options).returncode == 0
        found = json.loads(call("predict", task, *files, "--json").stdout)
        with (made / given).open(newline="") as stream:
            truth = dict(list(csv.reader(stream))[1:])
        if task == "labels":
            assert np.mean([set(row["labels"]) == set(truth[row["file"]].split(";")) - {""} for row in found]) > 0.7
            images = np.stack([np.asarray(Image.open(made / file)) for file in files])
            model = load(made / task / "model.safetensors")
            assert [sorted(names) for names in model.classify(images)] == [sorted(row["labels"]) for row in found]
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
    options = ("--net", "nets.py:places", *LONG, "--out", "run", "--quiet")
    assert call("train", "set", *options).returncode == 0
    done = call("predict", "run", "set/images/0.png", "set/images/1.png", "--out", "masks", "--json")
    for row in json.loads(done.stdout):
        written = np.asarray(Image.open(made / row["written"]))
        true = np.asarray(Image.open(made / "set" / "masks" / Path(row["file"]).name))
        assert set(np.unique(written)) <= {0, 100, 200}
        assert (written == true).mean() > 0.7
        assert row["shares"]["0"] == pytest.approx((written == 0).mean())


def stopped_and_resumed(
    call: Convolve, made: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], saved: int
) -> None:
    """A run that is stopped when so many checkpoints are written goes on to what a whole one ends in."""
    assert call("train", *options, "--out", "whole", "--threads", "2", "--quiet").returncode == 0
    left, save = [saved], Run.save

    def stopping(run: Run, *arguments: Any) -> None:
        save(run, *arguments)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", stopping)
    assert call("train", *options, "--out", "stopped", "--threads", "1", "--quiet").returncode == 130
    assert call("train", options[0], "--out", "stopped", "--resume", "--quiet").returncode == 0
    check_equal(made / "stopped", made / "whole")


def test_a_stopped_segmentation_goes_on_bit_for_bit(
    call: Convolve, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("set", "--net", "nets.py:places", "--epochs", "2", "--augment", "flip,shift", "--save-every", "0")
    stopped_and_resumed(call, made, monkeypatch, options, 3)


@pytest.mark.parametrize("task", ["segment", "autoencode"])
def test_a_set_that_memory_does_not_hold_trains_the_same_and_is_read_once(
    call: Convolve, made: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    given, net, options, _ = TASKS[task]
    settings = ("--net", f"nets.py:{net}", "--epochs", "2", "--augment", "flip,shift", "--quiet", *options)
    assert call("train", given, *settings, "--out", "held").returncode == 0
    monkeypatch.setattr("convolve.data.folder._memory", lambda: 0)
    asked: list[int] = []
    batch = Loader.batch

    def counted(loader: Loader, indices: np.ndarray) -> np.ndarray:
        asked.append(len(indices) if loader.form.dtype == "uint8" else 0)
        return batch(loader, indices)

    monkeypatch.setattr(Loader, "batch", counted)
    assert call("train", given, *settings, "--out", "streamed").returncode == 0
    held, streamed = (load(made / run / "last.safetensors") for run in ("held", "streamed"))
    for name, array in held.parameters.items():
        np.testing.assert_array_equal(array, streamed.parameters[name])
    results = [json.loads((made / run / "results.json").read_text())["test"] for run in ("held", "streamed")]
    assert results[0] == results[1]
    found = data.load(made / given, task=task)  # type: ignore[arg-type]
    assert isinstance(found.x_train, Loader)
    assert found.x_test is not None
    # two epochs with their validations, the test, its worst samples, and a batch for what it will cost and sizes
    assert sum(asked) < 2 * len(found.x_train) + len(found.x_test) + 24 + 3 * 64
    evaluated = json.loads(call("evaluate", "streamed", given, "--all", "--json").stdout)
    assert evaluated["images"] == 60
    assert "8x8x3" in call("datasets", given, "--task", task).stdout


def test_masks_of_odd_sizes_and_samples_that_cannot_be_given_back(call: Convolve, made: Path) -> None:
    x = np.random.default_rng(0).integers(0, 255, (40, 9, 13, 1), np.uint8)
    np.savez(made / "odd.npz", x_train=x, y_train=x[..., 0] // 128)
    assert call("train", "odd.npz", "--epochs", "1", "--out", "run", "--quiet").returncode == 0
    assert load(made / "run" / "model.safetensors").output_shape == (9, 13, 2)
    done = call("train", "odd.npz", "--task", "autoencode", "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert "samples of 9 x 13: autoencoder halves them, so that sizes must be even" in done.stderr


def test_what_does_not_suit_a_task(call: Convolve, made: Path) -> None:
    for arguments, sentence in (
        (("labels.csv", "--net", "nets.py:places"), "expected (2,), a value a class: end it in Dense(2)"),
        (("set", "--net", "nets.py:one"), "a value a class for each place: end it in Conv(3, 1), or take unet"),
        (("values.csv", "--net", "nets.py:one", "--balanced"), "--task regress has no classes"),
        (("values.csv", "--net", "nets.py:one", "--label-smoothing", "0.1"), "--task regress has no classes"),
        (("values.csv", "--task", "segment"), "a table of labels has no masks"),
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


def start(folder: Path, name: str, net: Layer, task: str, classes: tuple[str, ...] | None) -> Model:
    """A model as a run of a task leaves it, in a file."""
    model = Model(net, (8, 8, 3), seed=7, classes=classes)
    model.save(folder / name, {"task": task, "trained_on": "uint8"})
    return model


def body(*last: Layer) -> Layer:
    return Sequential(Normalize(0.0, 255.0), Conv(6, 3), BatchNorm(), ReLU(), *last)


STARTS = {
    # name: task that it has learnt, what its net ends in, its names
    "classes": ("classify", (GlobalAvgPool(), Dense(4)), tuple("abcd")),
    "labels": ("labels", (GlobalAvgPool(), Dense(2)), ("blue", "red")),
    "other": ("regress", (GlobalAvgPool(), Dense(3), Normalize((1.0, 2.0, 3.0), (0.1, 0.1, 0.1), name="scale")), None),
    "masks": ("segment", (Conv(3, 1),), ("0", "100", "200")),
    "two": ("segment", (Conv(2, 1),), ("no", "yes")),
    "back": ("autoencode", (Conv(3, 1),), None),
}
BEGUN = [
    # task, start, its new last layer
    ("labels", "classes", "dense1"),
    ("labels", "labels", None),
    ("regress", "classes", "dense1"),
    ("regress", "other", "dense1"),
    ("segment", "masks", None),
    ("segment", "two", "conv2"),
    ("segment", "back", "conv2"),
    ("autoencode", "back", None),
    ("autoencode", "two", "conv2"),
]


@pytest.mark.parametrize(("task", "name", "head"), BEGUN, ids=[f"{name} to {task}" for task, name, _ in BEGUN])
def test_a_trained_model_is_a_start_for_a_task(
    call: Convolve, made: Path, task: str, name: str, head: str | None
) -> None:
    learnt, last, classes = STARTS[name]
    begun = start(made, "start.safetensors", body(*last), learnt, classes)
    given, _, options, _ = TASKS[task]
    settings = ("--epochs", "2", "--batch-size", "16", "--rate", "0.001", "--average", "0.001", "--augment", "none")
    done = call("train", given, "--from", "start.safetensors", *settings, "--out", "run", *options)
    assert (done.returncode, done.stderr) == (0, "")
    wanted = f"gets a new last layer, {head}, which learns alone for 1 epoch" if head else "and keeps its last layer"
    assert f"start.safetensors {wanted}" in done.stdout or f"{KEPT[task]} {wanted}" in done.stdout
    model = load(made / "run" / "last.safetensors")
    filters = storage.load(made / "run" / "filters" / "0001.safetensors")[0]["conv1.weight"]
    assert np.array_equal(filters, begun.parameters["conv1.weight"]) is (head is not None)
    assert 0 < np.abs(model.parameters["conv1.weight"] - begun.parameters["conv1.weight"]).max() < 0.02
    shape = {"labels": (2,), "regress": (1,), "segment": (8, 8, 3), "autoencode": (8, 8, 3)}[task]
    assert model.output_shape == shape
    if task == "regress":  # the new layer's values lie at their own scale from the first epoch on
        with (made / "run" / "metrics.csv").open(newline="") as stream:
            assert float(next(csv.DictReader(stream))["validation_mae"]) < 800


def test_a_regression_that_knows_the_values_keeps_its_layer_and_their_scale(call: Convolve, made: Path) -> None:
    given, net, _, _ = TASKS["regress"]
    assert call("train", given, "--net", f"nets.py:{net}", *LONG, "--out", "first", "--quiet").returncode == 0
    done = call("train", given, "--from", "first", "--epochs", "1", "--rate", "1e-5", "--out", "second")
    assert (done.returncode, done.stderr) == (0, "")
    assert "first knows these values and keeps its last layer" in done.stdout
    reached = [json.loads((made / run / "results.json").read_text())["test"]["mae"] for run in ("first", "second")]
    assert reached[1] == pytest.approx(reached[0], rel=0.1)
    (made / "values.csv").write_text((made / "values.csv").read_text().replace(".png,1", ".png,-9"))
    done = call("train", given, "--from", "first", "--epochs", "1", "--out", "third")
    assert "first gets a new last layer, dense1, which learns alone" in done.stdout


def test_a_segmentation_from_another_goes_on_bit_for_bit(
    call: Convolve, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt, last, classes = STARTS["two"]
    start(made, "start.safetensors", body(*last), learnt, classes)
    options = ("set", "--from", "start.safetensors", "--epochs", "4", "--head-epochs", "2", "--save-every", "0")
    stopped_and_resumed(call, made, monkeypatch, options, 3)


def test_what_is_no_start_for_a_task(call: Convolve, made: Path) -> None:
    for name, given, options, sentence in (
        ("classes", "set", (), "gives (4,) for a sample; to segment begins from a net that gives something for each"),
        (
            "classes",
            "set/flat",
            ("--task", "autoencode"),
            "gives (4,) for a sample; to autoencode begins from a net that",
        ),
        ("masks", "labels.csv", (), "gives (8, 8, 3) for a sample; to labels begins from a net that gives one row"),
    ):
        learnt, last, classes = STARTS[name]
        start(made, "start.safetensors", body(*last), learnt, classes)
        done = call("train", given, "--from", "start.safetensors", *options, "--quiet")
        assert (done.returncode, done.stdout) == (1, "")
        assert f"--from start.safetensors: {sentence}" in done.stderr
