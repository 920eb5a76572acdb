"""WebSocket handshakes and their responses (RFC 6455 section 4.2)."""

import base64
from typing import Any

import pytest

from socket_server.transport.http.websocket_handshake import accept_key, encode_switching, judge_handshake

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD = {
    "REQUEST_METHOD": "GET",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_CONNECTION": "keep-alive, Upgrade",
    "HTTP_SEC_WEBSOCKET_KEY": KEY,
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}


def test_the_example_of_the_rfc_is_answered() -> None:
    assert accept_key(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # section 1.3


def test_spaces_around_a_key_are_ignored() -> None:
    assert accept_key(f" {KEY} ") == accept_key(KEY)


@pytest.mark.parametrize(
    "key",
    ["", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhl IHNhbXBsZSBub25jZQ==", "é" * 24, "=" * 24]
    + [base64.b64encode(bytes(size)).decode() for size in (0, 15, 17, 64)],
)
def test_a_key_that_is_not_sixteen_bytes_is_refused(key: str) -> None:
    assert accept_key(key) is None
    refusal = judge_handshake({**GOOD, "HTTP_SEC_WEBSOCKET_KEY": key})
    assert refusal is not None
    assert refusal[0].startswith("400 ")


def test_a_handshake_of_version_13_is_accepted() -> None:
    assert judge_handshake(GOOD) is None
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in encode_switching(GOOD)


@pytest.mark.parametrize("version", ["", "8", "12", "14", "13, 8", None])
def test_another_version_gets_the_version_that_is_spoken(version: str | None) -> None:
    environ: dict[str, Any] = {**GOOD, "HTTP_SEC_WEBSOCKET_VERSION": version}
    refusal = judge_handshake({name: value for name, value in environ.items() if value is not None})
    assert refusal is not None
    assert refusal[0] == "426 Upgrade Required"
    assert ("Sec-WebSocket-Version", "13") in refusal[1]


@pytest.mark.parametrize(
    "change",
    [
        {"REQUEST_METHOD": "POST"},
        {"SERVER_PROTOCOL": "HTTP/1.0"},
        {"HTTP_CONNECTION": "keep-alive"},
        {"HTTP_CONNECTION": ""},
    ],
)
def test_a_request_that_is_no_handshake_is_refused(change: dict[str, str]) -> None:
    refusal = judge_handshake({**GOOD, **change})
    assert refusal is not None
    assert refusal[0].startswith("400 ")
