"""The pictures of docs/looking.md, made anew: python docs/pictures.py (a minute; needs the extra `plot`)."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib import pyplot

from convolve import Model, datasets, plot, schedule, zoo
from convolve.view.drawing import drawing

FOLDER = Path(__file__).parent / "pictures"
EPOCHS, IMAGES, SHOWN = 3, 12_000, 7


def main() -> None:
    matplotlib.use("Agg")
    mnist = datasets.load("mnist")
    model = Model(zoo.digits(), input_shape=(28, 28, 1), seed=0, classes=mnist.classes)
    x, y = mnist.x_train[:IMAGES], mnist.y_train[:IMAGES]
    model.fit(x, y, epochs=EPOCHS, schedule=schedule.OneCycle())
    nine = mnist.x_test[SHOWN]

    _save("activations", plot.activations(model, nine))
    _save("patch", plot.patch(model, nine, "conv2", (5, 7, 3)))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(7, 3.6), layout="constrained")
    plot.saliency(model, nine, ax=left)
    plot.saliency(model, nine, method="occlusion", size=6, stride=2, ax=right)
    figure.savefig(FOLDER / "saliency.png", dpi=80)
    (FOLDER / "residual.svg").write_text(drawing(Model(zoo.resnet20(), (32, 32, 3)).network, "resnet20"))


def _save(name: str, axes: pyplot.Axes) -> None:
    axes.figure.savefig(FOLDER / f"{name}.png", dpi=80)


if __name__ == "__main__":
    main()
