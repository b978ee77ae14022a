"""Names: the set in the package, sets that are downloaded, and what the errors say."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convolve.data import known, load, names
from convolve.data.known import _File, _Known
from convolve.errors import DataError, FileError

PARTS = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
X = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2)
Y = np.array([0, 1, 2] * 2, np.uint8)


def test_mnist_is_in_the_package() -> None:
    data = load("mnist")
    assert data.describe() == "60,000 training and 10,000 test images, 28x28x1, 10 classes"
    assert data.classes == tuple("0123456789")
    assert data.x_test is not None
    assert data.y_test is not None
    assert data.x_train.dtype == data.x_test.dtype == np.uint8
    assert data.y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(data.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The authors' bytes: the checksum of train-images-idx3-ubyte, header included, as others publish it.
    digest = hashlib.sha256(bytes.fromhex("00000803 0000ea60 0000001c 0000001c") + data.x_train.tobytes())
    assert digest.hexdigest() == "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    beside = known._MNIST
    assert "CC BY-SA 3.0" in (beside / "LICENSE").read_text()
    assert "http://yann.lecun.com/exdb/mnist" in (beside / "README.md").read_text()


def test_a_package_without_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "_MNIST", tmp_path)
    with pytest.raises(FileError, match=r"mnist: .* should hold four files and does not; install convolve anew"):
        load("mnist")


def test_fashion_mnist_where_convolve_data_says(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOLVE_DATA", str(shared_data))
    data = load("fashion-mnist")
    assert data.describe() == "60,000 training and 10,000 test images, 28x28x1, 10 classes"
    assert data.classes[data.y_train[0]] == "Ankle boot"
    assert np.bincount(data.y_train).tolist() == [6000] * 10
    assert names()["fashion-mnist"] == f"in {shared_data / 'fashion-mnist'}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mnits", "mnits: neither a known set nor a file or folder. Did you mean mnist"),
        ("Fashion_MNIST", "Did you mean fashion-mnist"),
        ("cifar-10", "Did you mean cifar10"),
        ("quite-another", "folder. Expected one of mnist, fashion-mnist, cifar10; a .npz;"),
    ],
)
def test_unknown_names(name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError) as caught:
        load(name)
    assert words in str(caught.value)


def test_unknown_paths(tmp_path: Path) -> None:
    (tmp_path / "digits.npz").touch()
    with pytest.raises(FileError, match=r"Did you mean .*digits\.npz\?"):
        load(tmp_path / "digit.npz")
    (tmp_path / "digits.txt").touch()
    with pytest.raises(FileError, match=r"digits\.txt: a file that is no data set by itself\. Expected"):
        load(tmp_path / "digits.txt")
    with pytest.raises(FileError, match="neither a known set"):
        load(tmp_path / "nowhere" / "a.npz")
    with pytest.raises(FileError, match="~nobody-of-that-name: neither a known set"):
        load("~nobody-of-that-name")
    with pytest.raises(FileError, match=r"cannot be read|neither a known set"):
        load("x" * 5000)
    with pytest.raises(DataError, match="mnist: received a size of 32; expected none"):
        load("mnist", size=32)


# --- downloads, from a real server on this machine ---


@dataclass
class Server:
    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    stop_after: int | None = None  # bytes after which the connection is cut


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path[1:])
            content = state.files.get(self.path[1:])
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: state.stop_after])

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state = Server(f"http://127.0.0.1:{http.server_port}/")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that takes the user's cache's place; no $CONVOLVE_DATA, no proxy."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))
    monkeypatch.delenv("CONVOLVE_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache" / "data" / "tiny"


@pytest.fixture
def tiny(server: Server, cache: Path, as_idx: Any, monkeypatch: pytest.MonkeyPatch) -> _Known:
    """A set of four IDX files, published on the local server."""
    contents = [as_idx(array) for array in (X, Y, X[:3], Y[:3])]
    server.files = {name: gzip.compress(content) for name, content in zip(PARTS, contents, strict=True)}
    files = tuple(
        _File(name, len(content), hashlib.sha256(content).hexdigest(), gunzip=True)
        for name, content in zip(PARTS, contents, strict=True)
    )
    entry = _Known("tiny", server.url, "1 kB", files, ("a", "b", "c"), known._read_idx_set)
    monkeypatch.setitem(known._KNOWN, "tiny", entry)
    return entry


def test_download_once(tiny: _Known, server: Server, cache: Path) -> None:
    assert names()["tiny"] == f"downloaded when first used (1 kB from {server.url})"
    calls: list[tuple[str, int, int]] = []
    data = load("tiny", progress=lambda *call: calls.append(call))
    assert data.describe() == "6 training and 3 test images, 2x2x1, 3 classes"
    assert data.classes == ("a", "b", "c")
    assert calls == [(name, len(server.files[name]), len(server.files[name])) for name in PARTS]
    assert sorted(path.name for path in cache.iterdir()) == sorted(PARTS)
    assert names()["tiny"] == f"in {cache}"
    load("tiny")
    assert server.asked == list(PARTS)


def test_a_damaged_file_in_the_cache_is_fetched_anew(tiny: _Known, server: Server, cache: Path) -> None:
    load("tiny")
    damaged = cache / PARTS[1]
    damaged.write_bytes(damaged.read_bytes()[:-3])
    assert load("tiny").y_train.tolist() == Y.tolist()
    assert server.asked == [*PARTS, PARTS[1]]


def test_a_wrong_checksum_is_not_kept(tiny: _Known, server: Server, cache: Path, as_idx: Any) -> None:
    server.files[PARTS[1]] = gzip.compress(as_idx(Y[::-1].copy()))
    with pytest.raises(
        FileError, match=r"tiny: .*labels-idx1-ubyte\.gz as it came holds 14 bytes of SHA-256 .*not kept"
    ):
        load("tiny")
    assert [path.name for path in cache.iterdir()] == [PARTS[0]]


@pytest.mark.parametrize(
    "content", [b"<html>moved</html>", gzip.compress(bytes(9_000_000)), b"\x1f\x8bno gzip", bytes(10**6)]
)
def test_rubbish_is_not_kept(tiny: _Known, server: Server, cache: Path, content: bytes) -> None:
    server.files[PARTS[0]] = content
    with pytest.raises(FileError, match=r"not kept|broke off"):
        load("tiny")
    assert list(cache.iterdir()) == []


def test_an_interrupted_download(tiny: _Known, server: Server, cache: Path) -> None:
    server.stop_after = 20
    with pytest.raises(FileError, match=rf"broke off after 20 of {len(server.files[PARTS[0]])} bytes\. Try again"):
        load("tiny")
    assert list(cache.iterdir()) == []
    server.stop_after = None
    assert load("tiny").describe().startswith("6 training")


def test_a_download_that_the_person_stops(tiny: _Known, cache: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load("tiny", progress=stop)
    assert list(cache.iterdir()) == []


def test_offline(tiny: _Known, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setitem(known._KNOWN, "tiny", replace(tiny, url=f"http://127.0.0.1:{port}/"))
    with pytest.raises(FileError) as caught:
        load("tiny")
    message = str(caught.value)
    assert message.startswith(f"tiny: cannot download http://127.0.0.1:{port}/{PARTS[0]} (")
    assert message.endswith(
        f"Put {', '.join(PARTS)} from http://127.0.0.1:{port}/ into {cache}, or into $CONVOLVE_DATA/tiny."
    )
    assert list(cache.iterdir()) == []


def test_absent_on_the_server(tiny: _Known, server: Server) -> None:
    del server.files[PARTS[2]]
    with pytest.raises(FileError, match=r"cannot download .*t10k-images.* \(Not Found\)"):
        load("tiny")


def test_a_cache_that_cannot_be_written(tiny: _Known, cache: Path) -> None:
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(FileError, match=r"tiny: cannot write .*train-images.* Make room there"):
        load("tiny")


def test_a_folder_of_ones_own(
    tiny: _Known, server: Server, cache: Path, tmp_path: Path, as_idx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own" / "tiny"
    own.mkdir(parents=True)
    monkeypatch.setenv("CONVOLVE_DATA", str(own.parent))
    for name, array in zip(PARTS[:2], (X, Y), strict=True):  # packed again: other bytes, the same content
        (own / name).write_bytes(gzip.compress(as_idx(array), 1, mtime=1))
    assert load("tiny").describe() == "6 training and 3 test images, 2x2x1, 3 classes"
    assert server.asked == list(PARTS[2:])
    assert names()["tiny"] == f"in {cache} and {own}"
    (own / PARTS[0]).write_bytes(b"rubbish")
    with pytest.raises(FileError, match=rf"own/tiny/{PARTS[0]}: holds 7 bytes of SHA-256 .*Replace it by {server.url}"):
        load("tiny")


def test_cifar(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real reader on an archive of the same structure with two images a batch."""
    rng = np.random.default_rng(0)
    records = {f"data_batch_{i}.bin": rng.integers(0, 10, (2, 3073), np.uint8) for i in (3, 1, 2, 5, 4)}
    records["test_batch.bin"] = rng.integers(0, 10, (2, 3073), np.uint8)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in [*((n, r.tobytes()) for n, r in records.items()), ("readme.html", b"text")]:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    content = buffer.getvalue()
    server.files["cifar.tar.gz"] = content
    file = _File("cifar.tar.gz", len(content), hashlib.sha256(content).hexdigest(), gunzip=False)
    monkeypatch.setitem(
        known._KNOWN, "tiny", replace(known._KNOWN["cifar10"], name="tiny", url=server.url, files=(file,))
    )
    data = load("tiny")
    assert data.describe() == "10 training and 2 test images, 32x32x3, 10 classes"
    assert data.classes[-1] == "truck"
    first = records["data_batch_1.bin"][0]
    assert data.y_train[0] == first[0]
    np.testing.assert_array_equal(data.x_train[0, :, :, 1].ravel(), first[1 + 1024 : 1 + 2048])
    np.testing.assert_array_equal(data.x_train[8, 0, 5], records["data_batch_5.bin"][0][[6, 1030, 2054]])
    assert data.x_test is not None
    np.testing.assert_array_equal(data.x_test[1, 31, 31], records["test_batch.bin"][1][[1024, 2048, 3072]])
