"""The server: who is let in, what is taken, and what becomes of bad input."""

from __future__ import annotations

import http.client
import io
import socket
import threading
import wave
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from convolve import Conv, Dense, Flatten, Model, Sequential
from convolve.page.message import Message
from convolve.page.server import MOST_MESSAGE, Serving
from convolve.page.session import Session
from convolve.page.subject import Subject, subject
from convolve.page.upload import MOST_UPLOADED


@pytest.fixture(scope="module")
def small() -> Subject:
    net = Sequential(Conv(2, 3), Flatten(), Dense(3))
    model = Model(net, (8, 8, 1), classes=["<b>one</b>", "two", "three"])
    return subject(model.network, "<i>small</i>", model.classes, np.zeros((2, 8, 8, 1), np.uint8))


@pytest.fixture(scope="module")
def served(small: Subject, serve: Callable[[Subject], str]) -> Served:
    return Served(serve(small))


class Served:
    """A server as strangers find it: they may say what they like."""

    def __init__(self, address: str) -> None:
        _, _, self.host, self.token, _ = address.split("/")

    def get(self, path: str, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.host, timeout=20)
        connection.putrequest("GET", path, skip_host="host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer

    def socket(self, token: str, **headers: str) -> Any:
        return connect(f"ws://{self.host}/{token}/socket", additional_headers=headers, open_timeout=20)


def test_only_the_address_with_its_token_answers(served: Served) -> None:
    page = served.get(f"/{served.token}/")
    assert page.status == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self' 'sha256-" in policy
    assert "unsafe" not in policy
    assert page.headers["referrer-policy"] == "no-referrer"
    assert served.get(f"/{served.token}/main.js").headers["content-type"].startswith("text/javascript")
    wrong = ["/", "/wrong/", "/wrong/main.js", "/docs", f"/{served.token[:-1]}/", "/%ff/"]
    assert {path: served.get(path).status for path in wrong} == dict.fromkeys(wrong, 404)


@pytest.mark.parametrize(
    "path", ["../message.py", "..%2fmessage.py", "%2e%2e/message.py", "/etc/passwd", "jsconfig.json"]
)
def test_no_other_file_is_given(served: Served, path: str) -> None:
    assert served.get(f"/{served.token}/{path}").status == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "evil.example:80", "127.0.0.1:1", ""])
def test_other_hosts_are_refused(served: Served, host: str) -> None:
    assert served.get(f"/{served.token}/", host=host).status in (400, 403)


@pytest.mark.parametrize("origin", [None, "http://evil.example", "null", "https://127.0.0.1"])
def test_sockets_of_other_pages_are_refused(served: Served, origin: str | None) -> None:
    with pytest.raises(InvalidStatus):
        served.socket(served.token, **({"Origin": origin} if origin else {}))
    assert served.get(f"/{served.token}/", origin="http://evil.example").status == 403


def test_sockets_need_the_token(served: Served) -> None:
    with pytest.raises(InvalidStatus):
        served.socket("wrong", Origin=f"http://{served.host}")


def test_a_broken_message_is_answered_with_a_sentence(served: Served) -> None:
    with served.socket(served.token, Origin=f"http://{served.host}") as visitor:
        for data in (b"", b"\xff" * 40, b"\x04\0\0\0null", b"\x02\0\0\0[]", Message({"ask": "import os"}).pack()):
            visitor.send(data)
            assert Message.unpack(visitor.recv()).header["error"]
        visitor.send(Message({"ask": "net", "id": 7}).pack())
        assert Message.unpack(visitor.recv()).header["id"] == 7


def test_a_message_of_words_ends_the_visit(served: Served) -> None:
    with served.socket(served.token, Origin=f"http://{served.host}") as visitor:
        visitor.send("net")
        with pytest.raises(ConnectionClosed):
            visitor.recv()


def test_a_message_that_is_too_large_ends_the_visit(served: Served) -> None:
    with served.socket(served.token, Origin=f"http://{served.host}") as visitor:
        with suppress(ConnectionClosed):  # as soon as the server sees how long it is
            visitor.send(bytes(MOST_MESSAGE + 1))
        with pytest.raises(ConnectionClosed):
            visitor.recv()


def asked(shown: Subject, header: dict[str, Any], **arrays: np.ndarray) -> Message:
    return Session(shown).answer(Message.unpack(Message(header, arrays).pack()))


@pytest.mark.parametrize(
    "header",
    [
        {"ask": "look", "sample": 2},
        {"ask": "look", "sample": -1},
        {"ask": "look", "sample": "0"},
        {"ask": "look", "sample": True},
        {"ask": "thumbnails", "nodes": "all"},
        {"ask": "thumbnails", "nodes": [99]},
        {"ask": "layer", "node": 0, "order": "__class__"},
        {"ask": "layer", "node": 0, "from": 5},
        {"ask": "layer", "node": 0, "depth": float("1e400")},
        {"ask": "map", "node": 0, "channel": 2},
        {"ask": "pixel", "node": 0, "position": [8, 0, 0]},
        {"ask": "pixel", "node": 0, "position": "0"},
        {"ask": "heat", "method": "other", "target": 0},
        {"ask": "heat", "method": "grad_cam", "target": 3},
        {"ask": "excitation", "node": 1, "filters": [0]},
        {"ask": "excitation", "node": 0, "filters": [2]},
    ],
    ids=str,
)
def test_what_does_not_exist_is_refused_in_a_sentence(small: Subject, header: dict[str, Any]) -> None:
    assert "eceived" in asked(small, header).header["error"] or "has no" in asked(small, header).header["error"]


def encoded(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("1", size).save(file, "PNG")
    return file.getvalue()


def noise() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


NOISE = noise()


def uploaded(shown: Subject, content: bytes) -> Message:
    return asked(shown, {"ask": "look", "name": "my.png"}, file=np.frombuffer(content, np.uint8))


def array(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"no picture", "not an image"),
        (NOISE[: len(NOISE) // 2], "truncated"),
        (encoded((20_000, 20_000)), "pixels"),
        (bytes(MOST_UPLOADED + 1), "16 MB"),
        (array(np.zeros((9, 9))), "shape"),
        (array(np.array([print], object)), "Objects"),
        (array(np.full((8, 8, 1), np.nan)), "NaN"),
        (array(np.full((8, 8, 1), -1)), "0 to 255"),
        (array(np.zeros((8, 8, 1)))[:100], "damaged"),
        (b"\x93NUMPY\x01\x00", "plain array"),
    ],
    ids=["text", "cut", "bomb", "large", "shape", "pickle", "nan", "negative", "cut array", "magic alone"],
)
def test_a_bad_file_is_answered_with_a_sentence(small: Subject, content: bytes, word: str) -> None:
    found = uploaded(small, content).header["error"]
    assert word in found
    assert "my.png" in found


def test_files_become_the_picture(small: Subject) -> None:
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    for content in (file.getvalue(), array(picture.astype(np.int64))):
        assert np.array_equal(uploaded(small, content).arrays["picture0"][..., 0], picture)


def test_sounds_and_volumes_become_the_picture() -> None:
    tone = (20_000 * np.sin(np.arange(60) / 3)).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8000, len(tone), "NONE", ""))
        sound.writeframes(tone.tobytes())
    net = Sequential(Conv(2, 3), Flatten(), Dense(2))
    heard = np.zeros((1, 50, 1), np.float32)
    heard[0, 0] = 1
    for samples in (heard, None):  # of floats, or made up and in bytes
        shown = subject(Model(net, (50, 1)).network, "sound", None, samples)
        found = uploaded(shown, file.getvalue()).arrays["picture0"][:, 0]
        wanted = tone[:50] / 32768
        assert np.allclose(found, wanted if samples is not None else 127.5 * (1 + wanted), atol=1)
    volume = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    shown = subject(Model(net, (4, 5, 6, 1)).network, "volume")
    assert np.array_equal(uploaded(shown, array(volume)).arrays["picture0"][..., 0], volume)
    assert "(4, 5, 6, 1)" in uploaded(shown, file.getvalue()).header["error"]


def test_a_port_in_use_gives_the_next(small: Subject) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serving = Serving(small, port)
        assert serving.address.startswith("http://127.0.0.1:")
        assert f":{port}/" not in serving.address
        runs(serving, lambda _: serving.end())


def test_closing_the_last_tab_ends_the_server(small: Subject) -> None:
    serving = Serving(small, 0, grace=0.01)

    def visited(address: str) -> None:
        host = address.split("/")[2]
        url = address.replace("http", "ws") + "socket"
        with connect(url, origin=f"http://{host}") as visitor:
            visitor.send(Message({"ask": "net"}).pack())
            assert Message.unpack(visitor.recv()).header["title"] == "<i>small</i>"

    runs(serving, visited)


def runs(serving: Serving, opened: Callable[[str], object]) -> None:
    """Serve until it ends by itself."""
    thread = threading.Thread(target=serving.run, args=(opened,))
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
