"""How a model is kept: nets as JSON (`words`, `nets`), tensors and that JSON in one file (`files`)."""

from convolve.storage.files import dumps, load, loads, save, write
from convolve.storage.nets import describe, expand, restore
from convolve.storage.words import Word, decode, encode

__all__ = ["Word", "decode", "describe", "dumps", "encode", "expand", "load", "loads", "restore", "save", "write"]
