"""Labelled sets of images: known ones by name, and people's own files.

>>> from convolve import data
>>> data.load("mnist").describe()
'60,000 training and 10,000 test images, 28x28x1, 10 classes'
"""

from convolve.data.dataset import Dataset, Skipped
from convolve.data.images import read_image
from convolve.data.known import is_files, load, names
from convolve.data.waves import read_wave

__all__ = ["Dataset", "Skipped", "is_files", "load", "names", "read_image", "read_wave"]
