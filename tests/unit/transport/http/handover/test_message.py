"""The message of a handover: a request is the same in the other worker."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.http.handover import message
from socket_server.transport.http.handover.message import HandoverRequest
from tests.unit.transport.http.handover.requests import ADDRESS, BASE, GET, read_request

POST = b"POST /socket.io/?sid=%D7%A9 HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n4\x00\xffz"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n0\r\n\r\n"
LAST = b"GET /a HTTP/1.0\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"
ENCODED = b"GET /users/%2E%2E/x HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("data", [GET, POST, CHUNKED, LAST, ENCODED, UPGRADE, UPGRADE + b"\x81\x85frames"])
def test_a_request_is_the_same_in_the_other_worker(data: bytes) -> None:
    before = read_request(data)
    encoded = HandoverRequest.of(ADDRESS, before).encode()
    assert struct.unpack("!I", encoded[:4]) == (len(encoded) - 4,)
    after = message.decode(encoded[4:]).environ(BASE)
    assert after.pop("wsgi.input").read() == before.pop("wsgi.input").read()
    assert after == before


HEADER_NAME = st.text("abcXYZ-019", min_size=1, max_size=12).map(lambda name: f"X-{name}".encode())
HEADER_VALUE = st.binary(max_size=30).map(lambda value: bytes(byte for byte in value if byte >= 0x20 and byte != 0x7F))


@given(
    st.dictionaries(HEADER_NAME, HEADER_VALUE, max_size=8),
    st.text("abc/%=&?.1", max_size=30).map(str.encode),
    st.binary(max_size=100),
)
def test_any_request_is_the_same_in_the_other_worker(headers: dict[bytes, bytes], query: bytes, body: bytes) -> None:
    head = b"".join(b"%b: %b\r\n" % header for header in headers.items())
    test_a_request_is_the_same_in_the_other_worker(
        b"POST /socket.io/?%b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (query, head, len(body), body)
    )
