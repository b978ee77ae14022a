"""What is done with a trained model: evaluate, predict, summary, explain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.conftest import Convolve
from convolve import load


def test_evaluate_counts_every_class_and_every_confusion(convolve: Convolve, trained: Path, here: Path) -> None:
    found = json.loads(convolve("evaluate", trained, "few.npz", "--json").stdout)
    few = np.load(here / "few.npz")
    model = load(trained / "model.safetensors")
    wanted = model.evaluate(few["x_test"], few["y_test"])
    assert found["accuracy"] == wanted["accuracy"]
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
    labels = model.predict(few["x_test"]).argmax(-1)
    for pair in found["confused"]:
        true, predicted = int(pair["true"]), int(pair["predicted"])
        assert pair["count"] == np.sum((few["y_test"] == true) & (labels == predicted)) > 0
    assert [c["images"] for c in found["classes"]] == np.bincount(few["y_test"]).tolist()

    text = convolve("evaluate", trained, "few.npz").stdout
    assert f"accuracy    {found['accuracy']:.2%}" in text
    assert f"F1 (macro)  {found['f1_macro']:.4f}" in text
    assert "true class  taken for  images" in text
    assert convolve("evaluate", trained, "few.npz", "--quiet").stdout == f"{found['accuracy']:.2%}\n"


def test_evaluate_numbers_classes_by_their_names(convolve: Convolve, trained: Path, here: Path) -> None:
    few = np.load(here / "few.npz")
    x, y = few["x_test"], few["y_test"]
    parts = {"x_train": x, "x_test": x, "y_train": 9 - y, "y_test": 9 - y}
    np.savez(here / "turned.npz", **parts, classes=np.array([*"9876543210"]))
    np.savez(here / "letters.npz", **parts, classes=np.array([*"abcdefghij"]))
    turned = json.loads(convolve("evaluate", trained, "turned.npz", "--json").stdout)
    plain = json.loads(convolve("evaluate", trained, "few.npz", "--json").stdout)
    assert turned["accuracy"] == plain["accuracy"]
    done = convolve("evaluate", trained, "letters.npz")
    assert done.returncode == 1
    assert "has classes that the model does not know: a, b, c, d" in done.stderr


def test_predict_takes_image_files_of_any_size_and_kind(convolve: Convolve, trained: Path, here: Path) -> None:
    x = np.load(here / "few.npz")["x_test"][:2, ..., 0]
    Image.fromarray(x[0]).save(here / "grey.png")
    Image.fromarray(x[1]).convert("RGB").resize((200, 90)).save(here / "large colour.jpg")
    rows = json.loads(convolve("predict", trained, "grey.png", "large colour.jpg", "--json").stdout)
    model = load(trained / "model.safetensors")
    [logits] = model.predict(x[:1, ..., None])
    wanted = np.exp(logits) / np.exp(logits).sum()
    assert rows[0]["class"] == model.classify(x[:1, ..., None])[0]
    assert rows[0]["probability"] == pytest.approx(wanted.max(), rel=1e-5)
    assert [c["class"] for c in rows[0]["classes"]] == [str(i) for i in np.argsort(-wanted)[:3]]
    lines = convolve("predict", trained, "grey.png", "large colour.jpg").stdout.splitlines()
    assert lines[0].startswith(f"grey.png          {rows[0]['class']} {rows[0]['probability']:.1%}")
    assert lines[1].startswith(f"large colour.jpg  {rows[1]['class']} ")
    quiet = convolve("predict", trained, "grey.png", "large colour.jpg", "--quiet").stdout
    assert quiet.split() == [row["class"] for row in rows]


def test_summary_and_explain_take_a_model_or_a_name(convolve: Convolve, trained: Path) -> None:
    assert "79,400 parameters" in convolve("summary", "mlp").stdout
    found = json.loads(convolve("summary", trained, "--json").stdout)
    assert found["parameters"] == load(trained / "model.safetensors").parameter_count
    assert "GFLOP/s" in convolve("explain", trained / "model.safetensors", "--batch-size", "2").stdout
    assert json.loads(convolve("explain", trained, "--training", "--json").stdout)["rows"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("evaluate", "none", "few.npz"), "none: no such file, folder or net."),
        (("evaluate", "mlp", "few.npz"), "`convolve train DATA --net mlp`"),
        (("evaluate", ".", "few.npz"), ".: this folder holds no model.safetensors"),
        (("evaluate", "few.npz", "few.npz"), "few.npz: is no whole safetensors file"),
        (("evaluate", "cut.safetensors", "few.npz"), "cut.safetensors: is no whole safetensors file"),
        (("predict", "run", "none.png"), "none.png: cannot be read"),
        (("predict", "run", "few.npz"), "few.npz: not an image that is known here"),
        (("predict", "run", "cut.png"), "cut.png: "),
        (("summary", "resnet21"), "Did you mean resnet"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_used_is_one_sentence(
    call: Convolve, here: Path, trained: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    (here / "run").symlink_to(trained)
    (here / "cut.safetensors").write_bytes((trained / "model.safetensors").read_bytes()[:3000])
    Image.new("L", (28, 28)).save(here / "cut.png")
    (here / "cut.png").write_bytes((here / "cut.png").read_bytes()[:50])
    done = call(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("convolve: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_one_cpu_is_enough(convolve: Convolve, trained: Path) -> None:
    done = convolve("evaluate", trained, "few.npz", "--quiet", CONVOLVE_THREADS="1")
    assert done.stdout == convolve("evaluate", trained, "few.npz", "--quiet", "--threads", "2").stdout
