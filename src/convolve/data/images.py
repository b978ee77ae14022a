"""Image files of any size and kind to uint8 arrays, by Pillow."""

from __future__ import annotations

import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from convolve.errors import FileError, ShapeError

if TYPE_CHECKING:
    from PIL.Image import Image

# What is opened, by content; Pillow's other readers stay shut (its EPS reader starts another program).
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# What Pillow's readers let out on damaged files (TypeError, for example, on an EXIF block whose types are not its own).
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)

_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 lie on their side


class _Silence:
    """Pillow's remarks on odd metadata are not shown. Threads share the state of warnings: the first in changes it for
    all, the last out restores it."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._caught.__exit__(None, None, None)


_silence = _Silence()


def read_image(path: str | os.PathLike[str], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An image file as a model sees it: uint8 of `shape`, (height, width, channels).

    The whole image is resized to height x width, whatever its own proportions, with a filter that averages over the
    pixels it leaves out (bilinear, antialiased). It becomes grey for one channel and RGB for three. Before that, what
    a viewer would do: the EXIF rotation is applied, 16 bits are brought to 8, transparent parts become white; of an
    animation the first frame is taken.

    Raises:
        FileError: no such file, no image, a damaged one, or one with more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
        ShapeError: `shape` is not (height, width, 1) or (height, width, 3).
    """
    _check_shape(path, shape)
    place: Any = Path(path) if isinstance(path, str) else path
    with _opened(place) as image:
        return _brought_to(image, place, shape)


def decode_image(content: bytes, shape: tuple[int, ...], name: str) -> NDArray[np.uint8]:
    """As `read_image`, of a file's contents; `name` is what errors call it."""
    _check_shape(name, shape)
    with _opened(Path(name), BytesIO(content)) as image:
        return _brought_to(image, Path(name), shape)


def read_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.int32]:
    """The values of a mask's pixels, grey or indices of a palette, at this height and width: each pixel its nearest.

    Raises:
        FileError: it cannot be read, or has colours.
    """
    from PIL import Image as pil
    from PIL import ImageOps

    with _opened(path) as image:
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise FileError(
                f"{path}: a mask of mode {image.mode}; expected class numbers, as a grey image or with a palette."
            )
        values = np.asarray(ImageOps.exif_transpose(image)).astype(np.int32)
        nearest = pil.fromarray(values).resize((shape[1], shape[0]), pil.Resampling.NEAREST)
        return np.asarray(nearest, np.int32)


def _check_shape(path: str | os.PathLike[str], shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or shape[2] not in (1, 3) or min(shape) < 1:
        raise ShapeError(
            f"{path}: an image file cannot become an input of shape {shape}; expected (height, width, channels) "
            "with 1 channel (grey) or 3 (RGB). Give such a model arrays."
        )


def _brought_to(image: Image, path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    from PIL.Image import Resampling

    height, width, channels = shape
    # A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that leaves twice what is asked for: much faster.
    side = 2 * max(height, width)
    image.draft(None, (side, side))
    flat = _as_viewed(image, path).convert("L" if channels == 1 else "RGB")
    return np.array(flat.resize((width, height), Resampling.BILINEAR)).reshape(shape)


def probe(path: Path) -> tuple[int, int, bool]:
    """Height and width as viewed, and whether the image is grey, from the header alone.

    Raises:
        FileError: as `read_image`.
    """
    with _opened(path) as image:
        width, height = image.size
        # A TIFF's size is upright already; a PNG would be decoded in search of EXIF after its pixels.
        if "exif" in image.info and image.getexif().get(_ORIENTATION) in (5, 6, 7, 8):
            width, height = height, width
        return height, width, image.mode.startswith(("1", "L", "I"))


@contextmanager
def _opened(path: Path, content: BinaryIO | None = None) -> Iterator[Image]:
    """The image of a file, or of the contents that came under its name."""
    from PIL import Image, UnidentifiedImageError

    try:
        # As a stream: by name, Pillow maps uncompressed TIFFs into memory, and scrambles one that lies on its side.
        with _silence, content or path.open("rb") as stream, Image.open(stream, formats=_FORMATS) as image:
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
            yield image
    except FileError:
        raise
    except Image.DecompressionBombError as error:
        raise FileError(
            f"{path}: claims more pixels than the limit of {Image.MAX_IMAGE_PIXELS:,}, as a file made to exhaust "
            "memory would. If it is genuine, make it smaller, or set PIL.Image.MAX_IMAGE_PIXELS."
        ) from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}). Check the name.") from error
    except UnidentifiedImageError as error:
        raise FileError(f"{path}: not an image that is known here; expected one of {', '.join(_FORMATS)}.") from error
    except _DAMAGE as error:
        raise FileError(f"{path}: the image is truncated or damaged ({error}). Get or save it anew.") from error


def _as_viewed(image: Image, path: Path) -> Image:
    """Upright, 8 bits a channel, opaque."""
    from PIL import Image as pil
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise FileError(
            f"{path}: holds floating-point pixels, and no word on which is black and which is white; expected 8 or 16 "
            "bits a channel. Save it as such, or pass the values as an array."
        )
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise FileError(
                f"{path}: holds pixels from {values.min():,} to {values.max():,}; expected 8 or 16 bits a channel, "
                "0 to 65,535. Save it as such, or pass the values as an array."
            )
        return pil.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        return pil.alpha_composite(pil.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image
