"""Image files of every kind to what a model takes."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convolve.data import read_image
from convolve.data.images import probe
from convolve.errors import FileError, ShapeError

GREY = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)
LUMA = np.asarray(Image.fromarray(COLOUR).convert("L"))


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "jp2", "gif"])
def test_grey_and_colour_each_way(tmp_path: Path, suffix: str) -> None:
    options = {"webp": {"lossless": True}, "jp2": {"irreversible": False}}.get(suffix, {})
    grey = saved(tmp_path / f"grey.{suffix}", Image.fromarray(GREY), **options)
    result = read_image(grey, (6, 8, 1))
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result[..., 0], GREY)
    np.testing.assert_array_equal(read_image(str(grey), (6, 8, 3)), np.stack([GREY] * 3, axis=-1))
    if suffix == "gif":
        return
    colour = saved(tmp_path / f"colour.{suffix}", Image.fromarray(COLOUR), **options)
    np.testing.assert_array_equal(read_image(colour, (6, 8, 3)), COLOUR)
    np.testing.assert_array_equal(read_image(colour, (6, 8, 1))[..., 0], LUMA)


def test_is_resized_over_all_its_pixels(tmp_path: Path) -> None:
    stripes = np.zeros((64, 96), np.uint8)
    stripes[:, ::2] = 200
    path = saved(tmp_path / "stripes.png", Image.fromarray(stripes))
    small = read_image(path, (8, 8, 1))
    assert small.shape == (8, 8, 1)
    assert np.abs(small.astype(int) - 100).max() <= 2  # without averaging it would be 0 or 200
    assert read_image(path, (100, 7, 3)).shape == (100, 7, 3)


def test_a_large_jpeg(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 1600).astype(np.uint8), (1200, 1600))
    path = saved(tmp_path / "photo.jpg", Image.fromarray(ramp))
    small = read_image(path, (24, 32, 1))
    np.testing.assert_allclose(small[:, :, 0], np.broadcast_to((np.arange(32) + 0.5) / 32 * 255, (24, 32)), atol=3)


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    alpha = np.where(GREY < 100, 0, 255).astype(np.uint8)
    expected = np.where(GREY < 100, 255, GREY)
    rgba = saved(tmp_path / "rgba.png", Image.fromarray(np.dstack([GREY, GREY, GREY, alpha])))
    la = saved(tmp_path / "la.png", Image.fromarray(np.dstack([GREY, alpha])))
    for path in (rgba, la):
        np.testing.assert_array_equal(read_image(path, (6, 8, 1))[..., 0], expected)
    palette = Image.fromarray(GREY % 4)
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    path = saved(tmp_path / "palette.png", palette, transparency=1)
    colours = np.array([[255, 0, 0], [255, 255, 255], [0, 0, 255], [9, 9, 9]])
    np.testing.assert_array_equal(read_image(path, (6, 8, 3)), colours[GREY % 4])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"deep.{suffix}", Image.fromarray(GREY.astype(np.uint16) * 257))
    np.testing.assert_array_equal(read_image(path, (6, 8, 1))[..., 0], GREY)
    np.testing.assert_array_equal(read_image(path, (6, 8, 3))[..., 2], GREY)
    assert probe(path) == (6, 8, True)


def test_other_modes(tmp_path: Path) -> None:
    bits = saved(tmp_path / "bits.png", Image.fromarray(GREY > 100))
    np.testing.assert_array_equal(read_image(bits, (6, 8, 1))[..., 0], (GREY > 100) * 255)
    cmyk = saved(tmp_path / "cmyk.tif", Image.fromarray(COLOUR).convert("CMYK"))
    np.testing.assert_array_equal(read_image(cmyk, (6, 8, 3)), COLOUR)
    floats = saved(tmp_path / "floats.tif", Image.fromarray(GREY.astype(np.float32)))
    with pytest.raises(FileError, match=r"floats\.tif: holds floating-point pixels"):
        read_image(floats, (6, 8, 1))
    wide = saved(tmp_path / "wide.tif", Image.fromarray(GREY.astype(np.int32) * 1000))
    with pytest.raises(FileError, match=r"wide\.tif: holds pixels from 0 to 235,000; expected 8 or 16 bits"):
        read_image(wide, (6, 8, 1))


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path: Path, orientation: int, suffix: str) -> None:
    # Row 0 of the file is, seen upright, the side that the tag's value stands for.
    stored = {
        1: GREY,
        2: GREY[:, ::-1],
        3: GREY[::-1, ::-1],
        4: GREY[::-1],
        5: GREY.T,
        6: np.rot90(GREY),
        7: GREY[::-1, ::-1].T,
        8: np.rot90(GREY, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"turned.{suffix}", Image.fromarray(np.ascontiguousarray(stored)), exif=exif, **options)
    np.testing.assert_array_equal(read_image(path, (6, 8, 1))[..., 0], GREY)
    assert probe(path) == (6, 8, suffix != "webp")  # WebP knows no grey


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    path = saved(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(path, (6, 8, 1))[..., 0], GREY)


@pytest.mark.parametrize("shape", [(28, 28), (784,), (28, 28, 2), (0, 28, 1), (8, 28, 28, 1)])
def test_models_that_take_no_image_files(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"a\.png: an image file cannot become an input of shape"):
        read_image(tmp_path / "a.png", shape)


def test_no_image(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"absent\.png: cannot be read \(No such file"):
        read_image(tmp_path / "absent.png", (6, 8, 1))
    with pytest.raises(FileError, match=f"{tmp_path.name}: cannot be read"):
        read_image(tmp_path, (6, 8, 1))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(FileError, match=r"text\.png: not an image that is known here; expected one of BMP, GIF"):
        read_image(tmp_path / "text.png", (6, 8, 1))
    # Pillow would hand this one to another program.
    (tmp_path / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n")
    with pytest.raises(FileError, match=r"script\.png: not an image that is known here"):
        read_image(tmp_path / "script.png", (6, 8, 1))


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("side", [10_000, 50_000])
def test_a_bomb(tmp_path: Path, side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(9))))
    for call in (lambda: read_image(path, (6, 8, 1)), lambda: probe(path)):
        with pytest.raises(FileError, match=r"bomb\.png: claims more pixels than the limit of 89,478,485"):
            call()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"])
def test_any_damage_is_a_file_error(tmp_path: Path, form: str) -> None:
    draw = random.Random(form)
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(buffer, form, exif=exif)
    whole = buffer.getvalue()
    path = tmp_path / "photo"
    for _ in range(60):
        raw = bytearray(whole)
        if draw.random() < 0.4:
            del raw[draw.randrange(len(raw)) :]
        for _ in range(draw.randrange(4)):
            if raw:
                raw[draw.randrange(min(len(raw), draw.choice([40, 200, 10**6])))] = draw.randrange(256)
        path.write_bytes(raw)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                assert read_image(path, (8, 8, 3)).shape == (8, 8, 3)
            except FileError as error:
                assert str(path) in str(error)  # noqa: PT017 - that nothing else is raised is the point
