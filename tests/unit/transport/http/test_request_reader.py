"""HTTP requests: read alike wherever the stream is cut, limited in every part, and none that smuggles another."""

import gzip
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.http.errors import HttpError, RefusedError
from socket_server.transport.http.request_reader import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_SMALL_CHUNKS,
    RequestReader,
)

LIMIT = 1_000
GET = b"GET /health?a=b HTTP/1.1\r\nHost: server.example\r\n\r\n"
POST = b"POST /broadcast HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nbody"


def reader(limit: int = LIMIT, refusal: bytes | None = None) -> RequestReader:
    return RequestReader({"wsgi.url_scheme": "http", "REMOTE_ADDR": "127.0.0.1"}, lambda _: (limit, refusal))


def read(*data: bytes, limit: int = LIMIT) -> list[dict[str, Any]]:
    made = reader(limit)
    return [environ for piece in data for environ in made.feed(piece)]


def refused(*data: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(HttpError) as caught:
        read(*data, limit=limit)
    assert caught.value.message
    return caught.value.status.split(" ")[0]


def comparable(environs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in environ.items() if name != "wsgi.input"} for environ in environs]


def with_headers(*lines: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


# Requests


def test_a_request_is_a_wsgi_environment() -> None:
    (environ,) = read(
        b"GET /a%20b/%D7%A9?x=%20y HTTP/1.1\r\nHost: s.example:80\r\nCookie: a=b\r\nX-Some-Header:  v\r\n\r\n"
    )
    assert environ["REQUEST_METHOD"] == "GET"
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/a b/ש"
    assert environ["QUERY_STRING"] == "x=%20y"
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert (environ["HTTP_HOST"], environ["HTTP_COOKIE"], environ["HTTP_X_SOME_HEADER"]) == ("s.example:80", "a=b", "v")
    assert (environ["wsgi.url_scheme"], environ["REMOTE_ADDR"]) == ("http", "127.0.0.1")
    assert environ["wsgi.input"].read() == b""
    assert environ["socket_server.keep_alive"]


def test_a_body_is_complete() -> None:
    (environ,) = read(POST)
    assert environ["socket_server.body"] == environ["wsgi.input"].read() == b"body"
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("application/json", "4")


CHUNKED = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n5;ext=1\r\npedia\r\n0\r\n\r\n"


def test_a_chunked_body_is_joined() -> None:
    (environ,) = read(CHUNKED)
    assert environ["socket_server.body"] == b"Wikipedia"
    assert environ["CONTENT_LENGTH"] == "9"


def test_trailers_behind_a_chunked_body_are_ignored() -> None:
    data = CHUNKED[:-2] + b"X-Checksum: abc\r\n\r\n"
    for limit in (LIMIT, 1_048_576):
        (environ,) = read(data, limit=limit)
        assert environ["socket_server.body"] == b"Wikipedia"


STREAM = GET + POST + CHUNKED + GET


@pytest.mark.parametrize("cut", range(0, len(STREAM) + 1, 3))
def test_a_stream_cut_anywhere_gives_the_same_requests(cut: int) -> None:
    assert comparable(read(STREAM[:cut], STREAM[cut:])) == comparable(read(STREAM))
    assert len(read(STREAM)) == 4


def test_a_stream_byte_by_byte_gives_the_same_requests() -> None:
    assert comparable(read(*(bytes([byte]) for byte in STREAM))) == comparable(read(STREAM))


def test_nothing_of_one_request_is_in_the_next() -> None:
    first, second = read(b"POST / HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\nX-A: 1\r\nContent-Length: 1\r\n\r\nz" + GET)
    assert first["HTTP_COOKIE"] == "a=b"
    assert not second.keys() & {"HTTP_COOKIE", "HTTP_X_A", "CONTENT_LENGTH"}
    assert second["socket_server.body"] == b""


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (GET, True),
        (with_headers(b"Connection: close"), False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_a_request_says_whether_the_connection_is_kept(data: bytes, kept: bool) -> None:
    (environ,) = read(data)
    assert environ["socket_server.keep_alive"] is kept


def test_bytes_behind_an_upgrade_are_kept() -> None:
    upgrade = with_headers(b"Connection: Upgrade", b"Upgrade: websocket")
    (environ,) = read(upgrade + b"\x81\x85frames")
    assert environ["socket_server.rest"] == b"\x81\x85frames"


def test_the_reader_knows_whether_a_request_is_partial() -> None:
    made = reader()
    assert (made.partial, made.in_body) == (False, False)
    made.feed(POST[:10])
    assert (made.partial, made.in_body) == (True, False)
    made.feed(POST[10:-1])
    assert (made.partial, made.in_body) == (True, True)
    made.feed(POST[-1:])
    assert (made.partial, made.in_body) == (False, False)


def test_a_request_that_begins_behind_another_is_partial() -> None:
    made = reader()
    made.feed(GET + b"GET /slow HT")
    assert made.partial, "or it would get the time of an idle connection"


def test_a_client_that_expects_100_continue_is_recognized() -> None:
    made = reader()
    made.feed(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    assert made.continue_wanted
    made.feed(b"z")
    assert not made.continue_wanted


@pytest.mark.parametrize(
    "target", ["//health", "/a/../health", "http://x.example/health", "*", "/%zz", "/a#b", "/\\health"]
)
def test_a_path_that_is_not_in_normal_form_is_404(target: str) -> None:
    assert refused(f"GET {target}?a HTTP/1.1\r\nHost: x\r\n\r\n".encode()) == "404"


@pytest.mark.parametrize(("target", "encoded"), [("/health", False), ("/users/%2E%2E", True), ("/health?a=%20", False)])
def test_a_path_with_escapes_is_marked(target: str, encoded: bool) -> None:
    (environ,) = read(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert ("socket_server.percent_encoded" in environ) is encoded


# Headers


def test_repeated_lists_are_joined() -> None:
    (environ,) = read(
        with_headers(b"Cookie: a=1", b"Cookie: b=2", b"X-Forwarded-For: 1.1.1.1", b"X-Forwarded-For: 2.2.2.2")
    )
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["HTTP_X_FORWARDED_FOR"] == "1.1.1.1, 2.2.2.2"


@pytest.mark.parametrize("name", [b"Host", b"Authorization", b"Origin", b"Content-Type", b"Content-Length"])
def test_a_header_that_may_occur_once_is_refused_twice(name: bytes) -> None:
    assert refused(with_headers(name + b": 1", name + b": 1")) == "400"


@pytest.mark.parametrize("around", [b" ", b"\t", b"   ", b" \t "])
def test_spaces_around_a_value_are_not_part_of_it(around: bytes) -> None:
    (environ,) = read(with_headers(b"Sec-WebSocket-Version:" + around + b"13" + around))  # RFC 9112 section 5.1
    assert environ["HTTP_SEC_WEBSOCKET_VERSION"] == "13"


def test_a_header_with_an_underscore_is_dropped() -> None:
    (environ,) = read(with_headers(b"X_Forwarded_For: 6.6.6.6", b"X-Real_IP: 6.6.6.6"))
    assert not any("6.6.6.6" in str(value) for value in environ.values())


def test_a_client_cannot_set_the_servers_variables() -> None:
    (environ,) = read(with_headers(b"REMOTE-ADDR: 6.6.6.6", b"wsgi.url-scheme: https", b"Content-Length: 0"))
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("127.0.0.1", "http")


def test_a_request_of_http_1_1_has_a_host() -> None:
    assert refused(b"GET / HTTP/1.1\r\n\r\n") == "400"


# Request smuggling


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4, 4\r\n\r\nbody",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\nbody",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -4\r\n\r\nbody",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x4\r\n\r\nbody",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length :4\r\n\r\nbody",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbodyX\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"NONSENSE / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTX/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x00",
    ],
)
def test_a_request_that_servers_read_differently_is_refused(data: bytes) -> None:
    assert refused(data, GET) == "400"


@pytest.mark.parametrize("version", [b"0.9", b"2.0", b"1.2", b"9.9"])
def test_another_version_is_refused(version: bytes) -> None:
    assert refused(b"GET / HTTP/" + version + b"\r\nHost: x\r\n\r\n") in ("400", "505")


# Limits


def test_a_head_that_is_too_large_is_431() -> None:
    size = MAX_HEAD_BYTES + 1
    large = [
        b"GET /" + b"a" * size + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        with_headers(b"A: " + b"b" * size),
        with_headers(b"a" * size + b": b"),
        with_headers(*[b"A%d: %b" % (number, b"b" * 500) for number in range(80)]),
    ]
    for data in large:
        assert refused(data) == "431"
        assert refused(*(data[at : at + 1_000] for at in range(0, len(data), 1_000))) == "431"


def test_a_head_without_an_end_is_refused() -> None:
    assert refused(b"GET /", *[b"a" * 1_000] * 200) == "431"
    assert refused(b"GET / HTTP/1.1\r\nHost: x\r\n", *[b"A: b\r\n"] * 200) == "431"
    assert refused(*[b"\r\n" * 1_000] * 200) in ("400", "431")


def test_too_many_headers_are_431() -> None:
    assert len(read(with_headers(*[b"A: b"] * (MAX_HEADERS - 1)))) == 1
    assert refused(with_headers(*[b"A: b"] * MAX_HEADERS)) == "431"


def test_a_body_over_the_limit_is_413_by_its_head() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    assert len(read(head % LIMIT + b"x" * LIMIT)) == 1
    assert refused(head % (LIMIT + 1)) == "413"
    assert refused(head % 10**15) == "413"


def test_a_chunked_body_over_the_limit_is_413_as_it_grows() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert len(read(head, b"3e8\r\n" + b"x" * 1_000 + b"\r\n0\r\n\r\n")) == 1
    assert refused(head, *[b"64\r\n" + b"x" * 100 + b"\r\n"] * 11) == "413"


CHUNKED_HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 15])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_body_of_too_many_small_chunks_is_413(size: int, at_once: bool) -> None:
    chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
    chunks = [chunk * 100] * (MAX_SMALL_CHUNKS // 100 + 1)
    assert refused(CHUNKED_HEAD, *([b"".join(chunks)] if at_once else chunks), limit=10**6) == "413"


def test_as_many_small_chunks_as_are_allowed_are_a_body() -> None:
    (environ,) = read(CHUNKED_HEAD, b"1\r\nx\r\n" * (MAX_SMALL_CHUNKS - 1) + b"0\r\n\r\n", limit=10**6)
    assert len(environ["socket_server.body"]) == MAX_SMALL_CHUNKS - 1


def test_chunk_extensions_without_end_are_413() -> None:
    assert refused(CHUNKED_HEAD, b"1;a=", *[b"x" * 1_000] * 200, limit=10**6) == "413"


def test_trailers_without_end_are_431() -> None:
    assert refused(CHUNKED_HEAD, b"1\r\nx\r\n0\r\nX-T: ", *[b"x" * 1_000] * 200, limit=10**6) == "431"


# Content-Encoding


def gzip_post(body: bytes, coding: bytes = b"gzip") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n%b" % (coding, len(body), body)


@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b"x-gzip"])
def test_a_gzip_body_is_decoded(coding: bytes) -> None:
    (environ,) = read(gzip_post(gzip.compress(b"Wikipedia"), coding))
    assert environ["socket_server.body"] == environ["wsgi.input"].read() == b"Wikipedia"
    assert environ["CONTENT_LENGTH"] == "9"
    assert "HTTP_CONTENT_ENCODING" not in environ, "another worker must not decode it again"


def test_a_chunked_gzip_body_is_decoded() -> None:
    head = CHUNKED_HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n"
    (environ,) = read(head, *[b"1\r\n%c\r\n" % byte for byte in gzip.compress(b"Wikipedia")], b"0\r\n\r\n")
    assert environ["socket_server.body"] == b"Wikipedia"


@pytest.mark.parametrize("coding", [b"br", b"deflate", b"gzip, gzip", b"compress", b"zstd", b"nonsense"])
def test_another_encoding_is_415_by_the_head(coding: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: %b\r\nContent-Length: 4\r\n\r\n" % coding
    with pytest.raises(HttpError) as caught:
        read(head)
    assert caught.value.status.startswith("415 ")
    assert ("Accept-Encoding", "gzip") in caught.value.headers


@pytest.mark.parametrize("line", [b"Content-Encoding: identity", b"Content-Encoding:", b"X: y"])
def test_a_body_without_an_encoding_is_left_alone(line: bytes) -> None:
    (environ,) = read(b"POST / HTTP/1.1\r\nHost: x\r\n" + line + b"\r\nContent-Length: 4\r\n\r\nbody")
    assert environ["socket_server.body"] == b"body"


def test_the_encoding_of_no_body_is_ignored() -> None:
    assert read(with_headers(b"Content-Encoding: br"))[0]["socket_server.body"] == b""


@pytest.mark.parametrize("size", [LIMIT + 1, 100 * LIMIT, 10_000_000])
def test_a_gzip_body_over_the_limit_is_413(size: int) -> None:
    compressed = gzip.compress(b"x" * size)
    assert refused(gzip_post(compressed), limit=max(LIMIT, len(compressed))) == "413"


# What an error response needs


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://a.example\r\nA: " + b"b" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nOrigin: http://a.example\r\nContent-Length: 9999999\r\n\r\n",
        b"GET //x HTTP/1.1\r\nHost: x\r\norigin: http://a.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://a.example\r\nC: d\r\nA b\r\n\r\n",
    ],
)
def test_the_origin_is_known_after_an_error(data: bytes) -> None:
    made = reader()
    with pytest.raises(HttpError):
        made.feed(data)
    assert made.environ_so_far()["HTTP_ORIGIN"] == "http://a.example"


def test_two_origins_are_none() -> None:
    made = reader()
    with pytest.raises(HttpError):
        made.feed(with_headers(b"Origin: http://a.example", b"Origin: http://b.example"))
    assert "HTTP_ORIGIN" not in made.environ_so_far()


# By the head


def test_a_request_can_be_refused_by_its_head() -> None:
    made = reader(refusal=b"HTTP/1.1 401 Unauthorized\r\n\r\n")
    with pytest.raises(RefusedError) as caught:
        made.feed(POST[:-4])
    assert caught.value.response.startswith(b"HTTP/1.1 401 ")


# Arbitrary bytes


def feed_safely(data: bytes, cut: int) -> None:
    made = reader()
    try:
        for piece in (data[:cut], data[cut:]):
            for environ in made.feed(piece):
                assert len(environ["socket_server.body"]) <= LIMIT
                if "socket_server.rest" in environ:
                    return
    except HttpError:
        return


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_are_requests_or_an_http_error(data: bytes, cut: int) -> None:
    feed_safely(data, cut)


def test_twenty_thousand_damaged_requests_are_requests_or_an_http_error() -> None:
    rng = random.Random(9112)
    originals = [
        GET,
        POST,
        CHUNKED,
        with_headers(b"Connection: Upgrade", b"Upgrade: websocket"),
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    for _ in range(20_000):
        data = rng.choice(originals) + rng.choice((b"", GET))
        for _ in range(rng.randrange(1, 3)):
            at = rng.randrange(len(data))
            inserted = rng.choice((rng.randbytes(rng.randrange(3)), b"\r\n", b":", b" ", b"%", b"%zz", b"\x00", b"9" * 20))
            data = data[:at] + inserted + data[at + rng.randrange(3) :]
        feed_safely(data, rng.randrange(len(data) + 1))
