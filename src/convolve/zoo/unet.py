"""U-Net: an image in, a class for each of its pixels out."""

from __future__ import annotations

from convolve.layers import Concat, Conv, ConvTranspose, Input, MaxPool, Net, Sequential
from convolve.zoo.parts import Scaling, conv_norm_relu, preprocessing


def unet(classes: int = 2, filters: int = 16, depth: int = 3, normalize: Scaling = True) -> Net:
    """U-Net (Ronneberger, Fischer and Brox, "Convolutional networks for biomedical image segmentation", 2015).

    x (batch, *spatial, channels) -> logits (batch, *spatial, classes), at any rank: signals, images, volumes. `depth`
    times the size is halved and the filters, at first `filters`, are doubled; then up again by transposed
    convolutions, each joined with what was there on the way down. Other than in the paper, padding keeps the size
    and each convolution has batch norm. Sizes are 2 ** depth or more; where they are no multiples of it, what was
    halved with a rest is padded again before it is joined. With filters=64 and depth=4, the paper's, it has 31,037,633
    parameters for three channels and one class.

    >>> from convolve import Model
    >>> Model(unet(classes=5, filters=4), input_shape=(64, 48, 3)).output_shape
    (64, 48, 5)
    >>> Model(unet(classes=5, filters=4), input_shape=(61, 50, 3)).output_shape
    (61, 50, 5)
    >>> Model(unet(filters=4, depth=2), input_shape=(16, 16, 16, 1)).output_shape
    (16, 16, 16, 2)
    """
    image = Input()
    x, passed = image, []
    for layer in preprocessing(normalize):
        x = layer(x)
    for level in range(depth):
        passed.append(_double(filters * 2**level, f"down{level + 1}")(x))
        x = MaxPool(2)(passed[-1])
    x = _double(filters * 2**depth, "bottom")(x)
    for level in reversed(range(depth)):
        x = Concat(pad=True)(passed[level], ConvTranspose(filters * 2**level, 2, stride=2)(x))
        x = _double(filters * 2**level, f"up{level + 1}")(x)
    return Net(image, Conv(classes, 1)(x))


def _double(filters: int, name: str) -> Sequential:
    return Sequential(*conv_norm_relu(filters, 3), *conv_norm_relu(filters, 3), name=name)
