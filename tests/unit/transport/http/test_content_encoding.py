"""gzip bodies."""

import contextlib
import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.http import content_encoding
from socket_server.transport.http.errors import HttpError

GZIP = gzip.compress(b"content", mtime=0)


def refused(body: bytes, limit: int = 1_000) -> str:
    with pytest.raises(HttpError) as caught:
        content_encoding.decode(body, limit)
    return caught.value.status[:3]


@given(st.binary(max_size=5_000))
def test_what_was_compressed_is_decoded(content: bytes) -> None:
    assert content_encoding.decode(gzip.compress(content), 5_000) == content


def test_content_of_exactly_the_limit_is_accepted() -> None:
    compressed = gzip.compress(b"x" * 1_000)
    assert len(content_encoding.decode(compressed, 1_000)) == 1_000
    assert refused(compressed, 999) == "413"


@pytest.mark.parametrize(
    "body",
    [
        b"content",
        GZIP[:-1],
        GZIP[:10],
        GZIP[:1],
        GZIP + b"garbage",
        GZIP + b"\0",
        GZIP + GZIP,
        GZIP[:-8] + bytes(8),
        zlib.compress(b"content"),
        b"\x1f\x8b",
        b"\x1f\x8b\x08" + bytes(100),
    ],
)
def test_anything_but_one_whole_member_is_400(body: bytes) -> None:
    assert refused(body) == "400"


def test_a_bomb_takes_no_more_memory_than_the_limit() -> None:
    bomb = gzip.compress(bytes(100_000_000))
    tracemalloc.start()
    try:
        assert refused(bomb, 1_000_000) == "413"
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=300))
def test_any_bytes_are_content_or_an_http_error(body: bytes) -> None:
    with contextlib.suppress(HttpError):
        assert len(content_encoding.decode(b"\x1f\x8b\x08" + body, 1_000)) <= 1_000
