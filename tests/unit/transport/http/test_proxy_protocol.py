"""PROXY headers, versions 1 and 2."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.http.proxy_protocol import MAX_HEADER_BYTES, Header, ProxyProtocol

AUTO = ProxyProtocol("auto", None)
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
REQUEST = b"GET / HTTP/1.1\r\n\r\n"

V1 = b"PROXY TCP4 203.0.113.9 10.0.0.1 51234 3001\r\n"
V1_IPV6 = b"PROXY TCP6 2001:DB8::9 ::1 51234 3001\r\n"


def v2(
    command: int = 1, family: int = 0x11, addresses: bytes | None = None, extensions: bytes = b"", version: int = 2
) -> bytes:
    if addresses is None:
        addresses = socket.inet_aton("203.0.113.9") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 51_234, 3_001)
    body = addresses + extensions
    return SIGNATURE + struct.pack("!BBH", version << 4 | command, family, len(body)) + body


V2_IPV6 = v2(
    family=0x21,
    addresses=socket.inet_pton(socket.AF_INET6, "2001:db8::9") + bytes(16) + struct.pack("!HH", 51_234, 3_001),
)


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (V1, ("203.0.113.9", 51_234)),
        (V1_IPV6, ("2001:db8::9", 51_234)),
        (b"PROXY UNKNOWN\r\n", ("", 0)),
        (b"PROXY UNKNOWN ffff:f...f:ffff 1 65535 65535\r\n", ("", 0)),
        (v2(), ("203.0.113.9", 51_234)),
        (V2_IPV6, ("2001:db8::9", 51_234)),
        (v2(extensions=b"\x03\x00\x04abcd" + b"\x04\x00\x0a" + bytes(10)), ("203.0.113.9", 51_234)),
        (v2(command=0), None),
        (v2(command=0, family=0, addresses=b""), None),
        (v2(family=0, addresses=b""), ("", 0)),
        (v2(family=0x31, addresses=bytes(216)), ("", 0)),
        (v2(family=0x12), ("", 0)),
    ],
)
def test_a_header_names_the_client_wherever_it_is_cut(header: bytes, client: tuple[str, int] | None) -> None:
    for cut in range(1, len(header)):
        assert AUTO.parse(header[:cut]) is None, cut
    assert AUTO.parse(header) == AUTO.parse(header + REQUEST) == Header(len(header), client)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY\x20\r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 51234\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 51234 3001 1\r\n",
        b"PROXY TCP4 203.0.113.9  10.0.0.1 51234 3001\r\n",
        b"PROXY TCP4 2001:db8::9 ::1 51234 3001\r\n",
        b"PROXY TCP6 203.0.113.9 10.0.0.1 51234 3001\r\n",
        b"PROXY TCP4 203.0.113.999 10.0.0.1 51234 3001\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 65536 3001\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 -1 3001\r\n",
        b"PROXY TCP4 203.0.113.9 10.0.0.1 1e3 3001\r\n",
        "PROXY TCP4 203.0.113.9 10.0.0.1 ٣ 3001\r\n".encode(),
        b"PROXY TCP4 203.0.113.9\x00 10.0.0.1 51234 3001\r\n",
        b"PROXY UDP4 203.0.113.9 10.0.0.1 51234 3001\r\n",
        b"PROXY " + b"x" * 102,
        v2(version=1),
        v2(command=2),
        v2(addresses=bytes(11)),
        v2(family=0x21),
        v2(extensions=bytes(MAX_HEADER_BYTES)),
    ],
)
def test_a_malformed_header_is_refused(header: bytes) -> None:
    with pytest.raises(ValueError, match=r"PROXY|ascii|codec|null"):
        AUTO.parse(header + REQUEST)


@pytest.mark.parametrize("data", [REQUEST, b"POST / HTTP/1.1\r\n", b"\x16\x03\x01", b"proxy TCP4", b"\r\n\r\nGET /"])
def test_anything_else_is_no_header(data: bytes) -> None:
    assert AUTO.parse(data) == Header(0, None)


def test_only_the_configured_version_is_a_header() -> None:
    assert ProxyProtocol("v1", None).parse(v2()) == Header(0, None)
    assert ProxyProtocol("v2", None).parse(V1) == Header(0, None)
    assert ProxyProtocol("v1", None).parse(V1) == Header(len(V1), ("203.0.113.9", 51_234))
    assert ProxyProtocol("v2", None).parse(v2()) == Header(len(v2()), ("203.0.113.9", 51_234))


@pytest.mark.parametrize(
    ("allowed", "peer", "applies"),
    [
        (["127.0.0.1", "::1"], ("127.0.0.1", 1), True),
        (["127.0.0.1", "::1"], ("::1", 1, 0, 0), True),
        (["127.0.0.1", "::1"], ("127.0.0.2", 1), False),
        (["127.0.0.1", "::1"], ("::ffff:127.0.0.1", 1, 0, 0), True),
        (["10.0.0.0/8"], ("10.9.8.7", 1), True),
        (["10.0.0.0/8"], ("fe80::1%eth0", 1, 0, 2), False),
        (["*"], ("203.0.113.9", 1), True),
        ([], ("127.0.0.1", 1), False),
        ([], "", True),
    ],
)
def test_a_header_is_read_from_allowed_peers_only(allowed: list[str], peer: object, applies: bool) -> None:
    assert ProxyProtocol.of_gunicorn("auto", allowed).applies_to(peer) is applies


@given(st.binary(max_size=200), st.sampled_from([b"", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21"]))
def test_any_bytes_are_a_header_or_none_or_an_error(data: bytes, prefix: bytes) -> None:
    try:
        header = AUTO.parse(prefix + data)
    except ValueError:
        return
    assert header is None or 0 <= header.size <= len(prefix + data)
