"""Labelled sets of images: known ones by name, and people's own files.

>>> from convolve import data
>>> data.load("mnist").describe()
'60,000 training and 10,000 test images, 28x28x1, 10 classes'
"""

from convolve.data.dataset import Dataset
from convolve.data.images import read_image
from convolve.data.known import load, names

__all__ = ["Dataset", "load", "names", "read_image"]
