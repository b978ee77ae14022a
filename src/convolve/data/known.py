"""DATA, what a person names to train on: a known set or a path."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from convolve.data.cifar import CIFAR10, cifar, cifar_files, load_cifar
from convolve.data.dataset import Dataset, Task, as_task
from convolve.data.folder import load_folder
from convolve.data.idx import idx_files, load_idx, opened
from convolve.data.npz import load_npz
from convolve.errors import DataError, FileError

# Called with a file's name, the bytes that have come, and the bytes to come in all (0 where the server does not say).
Progress: TypeAlias = Callable[[str, int, int], None]

_MNIST = Path(__file__).parent / "files" / "mnist"
_BLOCK = 1 << 18
_TIMEOUT = 30.0  # seconds without a byte


@dataclass(frozen=True)
class _File:
    """One file of a known set, with the size and the checksum of its content: gunzipped, if `gunzip`.

    Copies of the same IDX data go round with other names and times in the gzip header, so that the packed files differ.
    """

    name: str
    size: int
    sha256: str
    gunzip: bool


@dataclass(frozen=True)
class _Known:
    """A set that others publish: `files` lie at `url`, and `read` makes a Dataset of their paths, in that order."""

    name: str
    url: str
    download: str
    files: tuple[_File, ...]
    classes: tuple[str, ...]
    read: Callable[[_Known, list[Path]], Dataset]


def load(
    data: str | os.PathLike[str],
    *,
    size: int | tuple[int, ...] | None = None,
    seed: int = 0,
    strict: bool = False,
    rate: int | None = None,
    task: Task | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """A labelled set, by name or by path.

    `data` is one of

    * `mnist`, which comes with the package;
    * `fashion-mnist` or `cifar10`: taken from $CONVOLVE_DATA/<name>/ if its files lie there, else from the user's
      cache, else downloaded into that. Every file is checked by its SHA-256 before it is read;
    * a `.npz` with x_train, y_train, x_test, y_test (see `convolve.data.npz.load_npz`);
    * a folder with one subfolder a class, of image files, WAV files or arrays in .npy files, or a CSV of path,label
      (see `convolve.data.folder.load_folder`);
    * a Parquet table of images, sounds, arrays or paths and labels, or a folder of them as the Hugging Face hub has it
      (see `convolve.data.parquet`; needs pyarrow: pip install 'convolve[parquet]');
    * a folder with IDX files in MNIST's naming, or a pair of IDX files as `images.gz,labels.gz`;
    * a folder with the binary files of CIFAR-10 or CIFAR-100.

    A known name goes before a file of that name: write `./mnist` for the file.

    Args:
        data: name or path.
        size: for files in folders: (height, width) of images, or one number for both; the number of samples of sounds.
        seed: for files in folders without a test part: chooses those that are held out.
        strict: for files in folders: stop at the first broken one, instead of leaving it out.
        task: what is to be learnt, one of `convolve.data.dataset.TASKS`; by default what the set has: of a folder with
            `images` and `masks` a class for each place, of a CSV and of a .npz what its labels are.
        rate: for sounds in folders: the samples a second that they are brought to; by default the most frequent.
        progress: called while a known set is downloaded with a file's name, bytes so far and bytes in all (0: unknown).

    Raises:
        FileError: nothing of that name, a file that cannot be read or downloaded, a wrong checksum.
        DataError, ShapeError: what `Dataset` does not take.

    >>> mnist = load("mnist")
    >>> mnist.x_train.shape, mnist.x_train.dtype, mnist.y_train[:5]
    ((60000, 28, 28, 1), dtype('uint8'), array([5, 0, 4, 1, 9]))
    """
    text = os.fspath(data)
    is_name = text == "mnist" or text in _KNOWN
    try:
        if is_files(text):
            return load_folder(_path(text), size, seed=seed, strict=strict, rate=rate, task=task)
        if size is not None:
            raise DataError(f"{text}: received a size of {size}; expected none, as only a folder of images is resized.")
        return as_task(_load_known(text, progress) if is_name else _load_path(text, task), task)
    except OSError as error:  # no right to look, a name too long, a disk that fails
        raise FileError(
            f"{text}: cannot be read ({error.strerror or error}). Check the name and its rights."
        ) from error


def is_files(data: str) -> bool:
    """Whether this names files with labels, which have no size of their own: a folder of classes, or a table of them.

    Raises:
        FileError: a folder with IDX files of which one is missing.
    """
    if data == "mnist" or data in _KNOWN:
        return False
    path = _path(data)
    return (path.is_dir() and not idx_files(path) and not cifar_files(path)) or (
        path.suffix.lower() in (".csv", ".parquet") and path.is_file()
    )


def names() -> dict[str, str]:
    """The known sets, and where each is or would come from.

    >>> names()["mnist"]
    'comes with convolve'
    """
    return {"mnist": "comes with convolve"} | {name: _whereabouts(known) for name, known in _KNOWN.items()}


def _load_known(name: str, progress: Progress | None) -> Dataset:
    if name == "mnist":
        files = idx_files(_MNIST)
        if len(files) < 4:
            raise FileError(f"mnist: {_MNIST} should hold four files and does not; install convolve anew.")
        return _load_idx_files(files, name, tuple("0123456789"))
    known = _KNOWN[name]
    return known.read(known, [_located(known, file, progress) for file in known.files])


def _load_path(text: str, task: Task | None) -> Dataset:
    path = _path(text)
    if path.is_dir() and cifar_files(path):
        return load_cifar(path)
    if path.is_dir():
        return _load_idx_files(idx_files(path), path.resolve().name)
    if path.suffix.lower() == ".npz" and path.exists():
        return load_npz(path, task)
    if text.count(",") == 1 and not path.exists():
        images, labels = (_path(part.strip()) for part in text.split(","))
        return load_idx((images, labels), name=images.name)
    raise FileError(_not_found(text, path))


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~someone who is not known here: a name like any other
        return Path(text)


def _load_idx_files(files: list[Path], name: str, classes: tuple[str, ...] | None = None) -> Dataset:
    return load_idx(files[:2], files[2:] or None, name=name, classes=classes)


def _not_found(text: str, path: Path) -> str:
    known = ["mnist", *_KNOWN]
    accepted = (
        f"Expected one of {', '.join(known)}; a .npz; a folder of images, sounds or arrays, with one subfolder a "
        "class, or of IDX files or CIFAR's; a CSV of path,label; a Parquet table; or a pair of IDX files, "
        "images,labels."
    )
    if path.exists():
        return f"{text}: a file that is no data set by itself. {accepted}"
    siblings = [str(path.parent / entry.name) for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(text.lower(), known) + difflib.get_close_matches(str(path), siblings)
    meant = f" Did you mean {' or '.join(near[:3])}?" if near else ""
    return f"{text}: neither a known set nor a file or folder.{meant} {accepted}"


# --- known sets that are fetched ---


def _folders(name: str) -> list[Path]:
    """Where the files of a known set are looked for, in this order; the last is where downloads go."""
    import platformdirs

    cache = Path(platformdirs.user_cache_dir("convolve", appauthor=False)) / "data" / name
    own = os.environ.get("CONVOLVE_DATA")
    return [Path(own).expanduser() / name, cache] if own else [cache]


def _whereabouts(known: _Known) -> str:
    folders = _folders(known.name)
    found = [next((str(f) for f in folders if (f / file.name).is_file()), None) for file in known.files]
    places = sorted({place for place in found if place is not None})
    if None in found:
        return f"downloaded when first used ({known.download} from {known.url})"
    return f"in {' and '.join(places)}"


def _located(known: _Known, file: _File, progress: Progress | None) -> Path:
    """The path of one file of a known set, checked; downloaded if it is nowhere, or damaged in the cache."""
    *own, cache = (folder / file.name for folder in _folders(known.name))
    for path in own:
        if path.exists():
            flaw = _flaw(path, file)
            if flaw:
                raise FileError(f"{path}: {flaw}. Replace it by {known.url}{file.name}.")
            return path
    if not cache.exists() or _flaw(cache, file):
        _download(known, file, cache, progress)
    return cache


def _flaw(path: Path, file: _File) -> str | None:
    """What is wrong with a file, in words, or None. Reads no more than the right file holds."""
    digest, size = hashlib.sha256(), 0
    try:
        with opened(path, file.gunzip) as (stream, _):
            while size <= file.size and (block := stream.read(_BLOCK)):
                size += len(block)
                digest.update(block)
    except FileError as error:
        return f"cannot be read or unpacked ({error.__cause__})"
    if size > file.size:
        return f"holds more than the {file.size:,} bytes that were expected"
    if digest.hexdigest() != file.sha256:
        return f"holds {size:,} bytes of SHA-256 {digest.hexdigest()}; expected {file.size:,} of {file.sha256}"
    return None


def _download(known: _Known, file: _File, target: Path, progress: Progress | None) -> None:
    """Into a temporary file beside the target, which takes its place only when it is whole and right."""
    import tempfile

    place = target.parent
    advice = (
        f"Put {', '.join(f.name for f in known.files)} from {known.url} into {place}, "
        f"or into $CONVOLVE_DATA/{known.name}."
    )
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place, prefix=f".{file.name}.")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                for block in _fetched(known, file, advice, progress):
                    stream.write(block)
                stream.flush()
                os.fsync(handle)
            flaw = _flaw(part, file)
            if flaw:
                raise FileError(f"{known.name}: {known.url}{file.name} as it came {flaw}. It was not kept. {advice}")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(
            f"{known.name}: cannot write {target} ({error.strerror or error}). Make room there. Or: {advice}"
        ) from error


def _fetched(known: _Known, file: _File, advice: str, progress: Progress | None) -> Iterator[bytes]:
    from http.client import HTTPException
    from urllib.error import URLError
    from urllib.request import urlopen

    url = known.url + file.name
    done = total = 0
    try:
        with urlopen(url, timeout=_TIMEOUT) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else 0
            # Packed data that exceed their content by more than a header are not the file.
            while done <= file.size + _BLOCK and (block := response.read(_BLOCK)):
                done += len(block)
                yield block
                if progress:
                    progress(file.name, done, total)
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise FileError(f"{known.name}: cannot download {url} ({reason}). {advice}") from error
    if done < total:
        raise FileError(f"{known.name}: {url} broke off after {done:,} of {total:,} bytes. Try again. {advice}")


def _read_idx_set(known: _Known, paths: list[Path]) -> Dataset:
    return _load_idx_files(paths, known.name, known.classes)


def _read_cifar(known: _Known, paths: list[Path]) -> Dataset:
    """CIFAR's binary version: records of a label byte and 32x32 red, then green, then blue values."""
    import tarfile

    parts: dict[str, NDArray[np.uint8]] = {}
    with opened(paths[0]) as (stream, _), tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            content = archive.extractfile(member) if name in CIFAR10 else None
            if content is not None:
                parts[name] = np.frombuffer(content.read(), np.uint8)
    return cifar(known.name, [parts[name] for name in CIFAR10], known.classes)


_KNOWN = {
    known.name: known
    for known in (
        _Known(
            name="fashion-mnist",
            url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            download="31 MB",
            files=(
                _File(
                    "train-images-idx3-ubyte.gz",
                    47_040_016,
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                    gunzip=True,
                ),
                _File(
                    "train-labels-idx1-ubyte.gz",
                    60_008,
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                    gunzip=True,
                ),
                _File(
                    "t10k-images-idx3-ubyte.gz",
                    7_840_016,
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                    gunzip=True,
                ),
                _File(
                    "t10k-labels-idx1-ubyte.gz",
                    10_008,
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                    gunzip=True,
                ),
            ),
            classes=(
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ),
            read=_read_idx_set,
        ),
        _Known(
            name="cifar10",
            url="https://www.cs.toronto.edu/~kriz/",
            download="170 MB",
            files=(
                _File(
                    "cifar-10-binary.tar.gz",
                    170_052_171,
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                    gunzip=False,
                ),
            ),
            classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
            read=_read_cifar,
        ),
    )
}
