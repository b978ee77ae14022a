"""`convolve train`: what it prints and leaves, when it is stopped, resumed, or cannot go on."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import resource
import shutil
import signal
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cli.conftest import Convolve, Start, check_equal
from convolve import load, storage
from convolve.cli.lock import lock

MODELS = {"model.safetensors", "last.safetensors", "checkpoint.safetensors", "filters"}
FILES = MODELS | {"metrics.csv", "curves.svg", "config.json", "results.json", "report.html", ".lock"}
SMALL = ("few.npz", "--net", "small.py:net", "--alone")


def test_a_run_from_data_to_folder(convolve: Convolve, here: Path) -> None:
    done = convolve("train", "few.npz", "--net", "digits", "--epochs", "2", "--augment", "shift")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "Chosen: net digits (given); epochs 2 (given); batch size 64; " in done.stdout
    assert "optimizer adamw; rate 0.00354; final 0.0004; average 0.998; smoothing " in done.stdout
    assert "augment Shift(amount=2, fill='zero') (given)" in done.stdout
    assert "300 training and 100 test images, 28x28x1, 10 classes" in done.stdout
    assert "271 images to learn from, 29 to watch (validation), 100 for the end (test)" in done.stdout
    assert "The fully-connected net of 784-100-10 has 79,400 weights (no biases); digits has" in done.stdout

    run = here / "runs" / "few-digits-1"
    assert {path.name for path in run.iterdir()} == FILES
    results = json.loads((run / "results.json").read_text())
    assert results["fully_connected"]["net"] == "784-100-10"
    assert results["fully_connected"]["parameters"] == 79_400
    assert results["test"]["images"] == sum(c["images"] for c in results["test"]["classes"]) == 100
    assert f"{results['net']['accuracy']:.2%}" in done.stdout
    wrong = sum(pair["count"] for pair in results["test"]["confused"])
    assert wrong == 100 - round(100 * results["test"]["accuracy"])

    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["validation_accuracy"]) <= 1 for row in rows)
    picture = ElementTree.parse(run / "curves.svg").getroot()
    assert picture.attrib["role"] == "img"
    model = load(run / "model.safetensors")
    assert model.classes == tuple("0123456789")
    assert f"{model.parameter_count:,} parameters" in done.stdout
    again = convolve("evaluate", run, "few.npz", "--json")
    assert json.loads(again.stdout)["accuracy"] == results["test"]["accuracy"]


def test_json_stands_alone_and_quiet_is_quiet(convolve: Convolve, here: Path) -> None:
    done = convolve("train", *SMALL, "--epochs", "1", "--out", "a", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads((here / "a" / "results.json").read_text())
    assert "validation" in done.stderr
    done = convolve("train", *SMALL, "--epochs", "1", "--out", "b", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (here / "a" / "model.safetensors").read_bytes() == (here / "b" / "model.safetensors").read_bytes()


def test_nothing_is_overwritten(convolve: Convolve, here: Path) -> None:
    for number in (1, 2):
        assert convolve("train", *SMALL, "--epochs", "1", "--quiet").returncode == 0
        assert (here / "runs" / f"few-small-{number}" / "results.json").exists()
    before = (here / "runs" / "few-small-1" / "model.safetensors").read_bytes()
    done = convolve("train", *SMALL, "--out", "runs/few-small-1")
    assert done.returncode == 1
    assert "runs/few-small-1: is not empty" in done.stderr
    assert (here / "runs" / "few-small-1" / "model.safetensors").read_bytes() == before


def _stopped(start: Start, number: signal.Signals, *arguments: str) -> tuple[int, str]:
    """Starts a run of 30 epochs, sends it a signal after its first, and gives what it had reached and what it said."""
    process = start("train", *SMALL, "--epochs", "30", "--batch-size", "8", "--out", "stopped", *arguments)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("1/30"):
            process.send_signal(number)
            break
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    found = re.fullmatch(r"Stopped\. stopped holds the model after epoch (\d+) of 30\. (To go on: .*)\n", err)
    assert found is not None
    return int(found[1]), found[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_run_holds_its_last_whole_epoch(start: Start, here: Path, number: signal.Signals) -> None:
    epoch, advice = _stopped(start, number)
    assert advice == "To go on: convolve train few.npz --out stopped --resume"
    stopped = here / "stopped"
    assert {path.name for path in stopped.iterdir()} == FILES - {"results.json", "report.html"}
    arrays, header = storage.load(stopped / "checkpoint.safetensors")
    assert len(header["epochs"]) == epoch == len((stopped / "metrics.csv").read_text().splitlines()) - 1
    assert header["steps"] == epoch * 34
    assert header["random"] == {"seed": 0, "step": epoch * 34}
    model = load(stopped / "last.safetensors")
    for name, array in model.parameters.items():
        np.testing.assert_array_equal(array, arrays[f"state:average/parameter:{name}"], name)
    assert sorted(path.name for path in (stopped / "filters").iterdir())[-1] == f"{epoch:04}.safetensors"
    weights, _ = storage.load(stopped / "filters" / f"{epoch:04}.safetensors")
    np.testing.assert_array_equal(weights["conv1.weight"], model.parameters["conv1.weight"])


def test_a_resumed_run_equals_the_one_that_was_never_stopped(start: Start, convolve: Convolve, here: Path) -> None:
    _stopped(start, signal.SIGINT, "--seed", "7")
    assert convolve("train", "few.npz", "--out", "stopped", "--resume", "--threads", "1").returncode == 0
    settings = ("--epochs", "30", "--batch-size", "8", "--seed", "7", "--threads", "2")
    assert convolve("train", *SMALL, *settings, "--out", "whole").returncode == 0
    check_equal(here / "stopped", here / "whole")
    assert len((here / "stopped" / "metrics.csv").read_text().splitlines()) == 31


@pytest.mark.parametrize(("checkpoints", "optimizer"), [(2, "adamw"), (7, "muon")])
def test_a_killed_run_goes_on_bit_for_bit(
    start: Start, convolve: Convolve, here: Path, checkpoints: int, optimizer: str
) -> None:
    """A checkpoint after each step, 5 steps an epoch: killed when so many have appeared, on other threads resumed."""
    settings = ("--epochs", "2", "--batch-size", "64", "--save-every", "0", "--optimizer", optimizer)
    assert convolve("train", *SMALL, *settings, "--out", "whole", "--threads", "2").returncode == 0
    killed = here / "killed"
    process = start("train", *SMALL, *settings, "--out", "killed", "--threads", "2")
    seen: set[int] = set()
    while len(seen) < checkpoints and process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            seen.add((killed / "checkpoint.safetensors").stat().st_ino)
    process.kill()
    process.communicate()
    storage.load(killed / "checkpoint.safetensors")  # it is whole
    done = convolve("train", "few.npz", "--out", "killed", "--resume", "--threads", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(killed.glob(".convolve-*"))
    check_equal(killed, here / "whole")
    assert len((killed / "metrics.csv").read_text().splitlines()) == 3


def test_two_runs_never_share_a_folder(convolve: Convolve, here: Path, trained: Path) -> None:
    run = here / "run"
    shutil.copytree(trained, run)
    with lock(run):
        done = convolve("train", "few.npz", "--out", "run", "--resume", "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("convolve: run: another run is filling this folder")
    assert convolve("train", "few.npz", "--out", "run", "--resume", "--quiet").returncode == 0


def test_a_folder_that_vanishes_ends_the_run_in_a_sentence(start: Start, here: Path) -> None:
    process = start("train", *SMALL, "--epochs", "1000", "--out", "run")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("1/1000"):
            (here / "run").rename(here / "gone")
            break
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.startswith("convolve: run/checkpoint.safetensors: cannot be written (No such file or directory)")
    assert err.count("\n") == 1
    storage.load(here / "gone" / "checkpoint.safetensors")
    load(here / "gone" / "model.safetensors")


def test_the_best_epoch_is_kept_and_patience_ends_a_run(convolve: Convolve, here: Path) -> None:
    options = ("--epochs", "30", "--patience", "2", "--label-smoothing", "0.1", "--balanced", "--average", "0.5")
    done = convolve("train", *SMALL, *options, "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")
    results = json.loads((here / "run" / "results.json").read_text())
    with (here / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    best = results["best_epoch"]
    assert len(rows) == best + 2 < 30
    merits = [(float(row["validation_accuracy"]), -float(row["validation_loss"])) for row in rows]
    assert best == 1 + merits.index(max(merits))
    _, header = storage.load(here / "run" / "model.safetensors")
    assert header["extra"]["epoch"] == best
    _, header = storage.load(here / "run" / "last.safetensors")
    assert header["extra"]["epoch"] == best + 2
    assert f"the best epoch by the validation images is {best} of {best + 2}" in done.stdout
    assert "expected: " in done.stdout
    assert results["cost"]["peak_bytes"] > 1e7
    assert results["cost"]["expected_epoch_seconds"] > 0


def test_stopped_before_an_epoch_was_whole_leaves_nothing(start: Start, here: Path) -> None:
    process = start("train", *SMALL, "--epochs", "100000", "--batch-size", "1", "--out", "run")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("layer"):  # of the summary, before the first step
            process.send_signal(signal.SIGINT)
            break
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "Stopped. Nothing is kept, as no epoch was whole.\n")
    assert not (here / "run").exists()


def test_a_diverging_loss_is_one_sentence(convolve: Convolve, here: Path) -> None:
    done = convolve("train", *SMALL, "--rate", "1e30", "--out", "run", "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("convolve: the loss became ")
    assert done.stderr.endswith("Nothing is kept, as no epoch was whole.\n")
    assert not (here / "run").exists()


def test_a_full_disk_leaves_no_half_a_file(convolve: Convolve, here: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = convolve("train", *SMALL, "--out", "run", "--quiet", prepare=limit)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("convolve: run/checkpoint.safetensors: cannot be written (File too large).")
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nothing",), "nothing: neither a known set nor a file or folder."),
        (("minst",), "Did you mean mnist?"),
        (("cut.npz",), "cut.npz: is no whole .npz"),
        (("few.npz", "--net", "resnet21"), "Did you mean resnet"),
        (("few.npz", "--net", "none.py:net"), "none.py: no such file"),
        (("few.npz", "--net", "small.py:nte"), "nothing is named nte; it holds net"),
        (("few.npz", "--net", "small.py:Conv"), "Conv is <class"),
        (("few.npz", "--net", "broken.py"), "broken.py, line 2: NameError: name 'Conf' is not defined"),
        (("few.npz", "--net", "syntax.py"), "syntax.py, line 1: SyntaxError: '(' was never closed"),
        (("few.npz", "--net", "nine.py"), "its output has shape (9,); expected (10,)"),
        (("few.npz", "--net", "deep.py"), "max_pool"),
        (("few.npz", "--augment", "flp"), "--augment flp: no augmentation of that name. Did you mean flip?"),
        (("few.npz", "--augment", "[1"), "--augment [1: is no JSON"),
        (("few.npz", "--out", "few.npz"), "--out few.npz: is a file"),
        (("few.npz", "--out", "few.npz/run"), "--out few.npz/run: cannot be made"),
        (("few.npz", "--out", "new", "--resume"), "new: no run to resume"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_work_is_one_sentence(
    call: Convolve, here: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    (here / "cut.npz").write_bytes((here / "few.npz").read_bytes()[:5000])
    (here / "broken.py").write_text("from convolve import *\nnet = Conf(3)\n")
    (here / "syntax.py").write_text("net = (\n")
    (here / "nine.py").write_text("from convolve import *\nnet = Sequential(Flatten(), Dense(9))\n")
    (here / "deep.py").write_text("from convolve import *\nnet = Sequential(*[MaxPool(2)] * 9, Flatten(), Dense(10))\n")
    before = sorted(here.iterdir())
    done = call("train", *arguments, "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("convolve: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(here.iterdir()) == before


def test_a_resumed_run_goes_on_as_it_began(call: Convolve, here: Path, trained: Path) -> None:
    run = here / "run"
    shutil.copytree(trained, run)
    np.savez(here / "other.npz", **{k: v[::-1] for k, v in np.load(here / "few.npz").items()})
    for arguments, sentence in (
        (("few.npz", "--epochs", "9"), "--epochs 9: the run in run was begun with 4"),
        (("few.npz", "--seed", "1"), "--seed 1: the run in run was begun with 0"),
        (("few.npz", "--optimizer", "muon"), "--optimizer muon: the run in run was begun with adamw"),
        (("other.npz",), "other.npz: not the data that this run was begun with"),
    ):
        done = call("train", *arguments, "--out", "run", "--resume", "--quiet")
        assert done.returncode == 1
        assert sentence in done.stderr
    for name in ("checkpoint.safetensors", "config.json"):
        kept = (run / name).read_bytes()
        (run / name).write_bytes(kept[: len(kept) // 2])
        done = call("train", "few.npz", "--out", "run", "--resume", "--quiet")
        assert done.returncode == 1
        assert f"run/{name}: " in done.stderr
        assert (run / name).read_bytes() == kept[: len(kept) // 2]
        (run / name).write_bytes(kept)
    config = json.loads((run / "config.json").read_text())
    kept = (run / "config.json").read_bytes()
    config["settings"]["optimizer"] = "of tomorrow"
    (run / "config.json").write_text(json.dumps(config))
    done = call("train", "few.npz", "--out", "run", "--resume", "--quiet")
    assert "this run was begun by another version of convolve" in done.stderr
    (run / "config.json").write_bytes(kept)
    done = call("train", "few.npz", "--out", "run", "--resume", "--epochs", "4", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert (run / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_a_set_without_a_test_part_is_divided_as_evaluate_divides_it(convolve: Convolve, here: Path) -> None:
    few = np.load(here / "few.npz")
    np.savez(here / "whole.npz", x_train=few["x_train"], y_train=few["y_train"])
    done = convolve("train", "whole.npz", "--net", "small.py:of", "--alone", "--epochs", "1", "--out", "run")
    assert "it has no test part, so a fifth of its images was held out as one" in done.stdout
    reached = json.loads((here / "run" / "results.json").read_text())["test"]
    found = json.loads(convolve("evaluate", "run", "whole.npz", "--json").stdout)
    assert found["images"] == reached["images"] < 70
    assert found["accuracy"] == reached["accuracy"]
    assert json.loads(convolve("evaluate", "run", "whole.npz", "--all", "--json").stdout)["images"] == 300


def test_where_training_flips_the_mean_over_mirror_images_is_told_besides(call: Convolve, here: Path) -> None:
    done = call("train", *SMALL, "--augment", "flip", "--epochs", "2", "--batch-size", "8", "--out", "run")
    assert done.returncode == 0, done.stderr
    results = json.loads((here / "run" / "results.json").read_text())
    mirrored = results["test_with_mirror_images"]
    assert mirrored["accuracy"] != results["test"]["accuracy"]
    sentence = f"(--views flip), the test accuracy is {mirrored['accuracy']:.2%}."
    assert sentence in done.stdout
    assert sentence in (here / "run" / "report.html").read_text()
    for given, known in (((), results["test"]), (("--views", "flip"), mirrored)):
        found = json.loads(call("evaluate", "run", "few.npz", "--json", *given).stdout)
        assert (found["accuracy"], found["loss"]) == (known["accuracy"], known["loss"])
    call("train", *SMALL, "--augment", "none", "--epochs", "1", "--out", "plain")
    assert json.loads((here / "plain" / "results.json").read_text())["test_with_mirror_images"] is None


def test_floats_are_normalised_by_their_own_mean_and_deviation(convolve: Convolve, here: Path) -> None:
    few = np.load(here / "few.npz")
    scaled = {key: value / 1000 - 3 if key[0] == "x" else value for key, value in few.items()}
    np.savez(here / "floats.npz", **scaled)
    assert convolve("train", "floats.npz", "--net", "mlp", "--epochs", "1", "--out", "run", "--quiet").returncode == 0
    model = load(here / "run" / "model.safetensors")
    normal = model.trace(scaled["x_train"].astype(np.float32))["normalize"]
    assert abs(normal.mean()) < 0.05
    assert abs(normal.std() - 1) < 0.05
    done = convolve("predict", "run", "few.npz")
    assert done.returncode == 1
    assert "was trained on numbers of a scale that image files (0 to 255) do not have" in done.stderr
