"""HTTP requests: the same across any cut, limited in every part, and none that could be smuggled."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.http.codec import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    HttpError,
    RefusedError,
    RequestReader,
    encode_response,
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


def seen(environs: list[dict[str, Any]]) -> list[dict[str, Any]]:
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


def test_a_body_is_there_whole() -> None:
    (environ,) = read(POST)
    assert environ["socket_server.body"] == environ["wsgi.input"].read() == b"body"
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("application/json", "4")


CHUNKED = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n5;ext=1\r\npedia\r\n0\r\n\r\n"


def test_a_chunked_body_is_put_together() -> None:
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
def test_a_stream_cut_anywhere_is_the_same_requests(cut: int) -> None:
    assert seen(read(STREAM[:cut], STREAM[cut:])) == seen(read(STREAM))
    assert len(read(STREAM)) == 4


def test_a_stream_byte_by_byte_is_the_same_requests() -> None:
    assert seen(read(*(bytes([byte]) for byte in STREAM))) == seen(read(STREAM))


def test_nothing_of_one_request_stays_for_the_next() -> None:
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
def test_whether_the_connection_goes_on_is_told(data: bytes, kept: bool) -> None:
    (environ,) = read(data)
    assert environ["socket_server.keep_alive"] is kept


def test_what_follows_an_upgrade_is_handed_over() -> None:
    upgrade = with_headers(b"Connection: Upgrade", b"Upgrade: websocket")
    (environ,) = read(upgrade + b"\x81\x85frames")
    assert environ["socket_server.rest"] == b"\x81\x85frames"


def test_where_the_stream_stands_is_told() -> None:
    made = reader()
    assert (made.partial, made.in_body) == (False, False)
    made.feed(POST[:10])
    assert (made.partial, made.in_body) == (True, False)
    made.feed(POST[10:-1])
    assert (made.partial, made.in_body) == (True, True)
    made.feed(POST[-1:])
    assert (made.partial, made.in_body) == (False, False)


def test_a_request_begun_behind_another_is_under_way() -> None:
    made = reader()
    made.feed(GET + b"GET /slow HT")
    assert made.partial, "else it has the time of an idle connection to trickle in"


def test_who_wants_to_be_asked_for_the_body_is_found() -> None:
    made = reader()
    made.feed(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    assert made.continue_wanted
    made.feed(b"z")
    assert not made.continue_wanted


def test_an_absolute_target_is_its_path() -> None:
    assert [environ["PATH_INFO"] for environ in read(b"GET http://x.example/health?a HTTP/1.1\r\nHost: x\r\n\r\n")] == [
        "/health"
    ]
    assert [environ["PATH_INFO"] for environ in read(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")] == ["/"]


# Headers


def test_lists_are_joined() -> None:
    (environ,) = read(
        with_headers(b"Cookie: a=1", b"Cookie: b=2", b"X-Forwarded-For: 1.1.1.1", b"X-Forwarded-For: 2.2.2.2")
    )
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["HTTP_X_FORWARDED_FOR"] == "1.1.1.1, 2.2.2.2"


@pytest.mark.parametrize("name", [b"Host", b"Authorization", b"Origin", b"Content-Type", b"Content-Length"])
def test_a_header_that_decides_may_stand_once(name: bytes) -> None:
    assert refused(with_headers(name + b": 1", name + b": 1")) == "400"


@pytest.mark.parametrize("around", [b" ", b"\t", b"   ", b" \t "])
def test_spaces_around_a_value_are_not_part_of_it(around: bytes) -> None:
    (environ,) = read(with_headers(b"Sec-WebSocket-Version:" + around + b"13" + around))  # RFC 9112 section 5.1
    assert environ["HTTP_SEC_WEBSOCKET_VERSION"] == "13"


def test_a_header_with_an_underscore_cannot_pass_for_another() -> None:
    (environ,) = read(with_headers(b"X_Forwarded_For: 6.6.6.6", b"X-Real_IP: 6.6.6.6"))
    assert not any("6.6.6.6" in str(value) for value in environ.values())


def test_a_client_cannot_set_what_the_server_says() -> None:
    (environ,) = read(with_headers(b"REMOTE-ADDR: 6.6.6.6", b"wsgi.url-scheme: https", b"Content-Length: 0"))
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("127.0.0.1", "http")


def test_a_request_of_http_1_1_has_a_host() -> None:
    assert refused(b"GET / HTTP/1.1\r\n\r\n") == "400"


# What smuggles


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
def test_what_servers_read_differently_is_refused(data: bytes) -> None:
    assert refused(data, GET) == "400"


@pytest.mark.parametrize("version", [b"0.9", b"2.0", b"1.2", b"9.9"])
def test_another_version_is_refused(version: bytes) -> None:
    assert refused(b"GET / HTTP/" + version + b"\r\nHost: x\r\n\r\n") in ("400", "505")


# Limits


def test_a_head_that_is_too_large_is_431_wherever_it_is_large() -> None:
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


def test_a_head_without_an_end_is_cut_off() -> None:
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


def test_a_request_may_be_refused_by_its_head_before_its_body() -> None:
    made = reader(refusal=b"HTTP/1.1 401 Unauthorized\r\n\r\n")
    with pytest.raises(RefusedError) as caught:
        made.feed(POST[:-4])
    assert caught.value.response.startswith(b"HTTP/1.1 401 ")


# Whatever comes


def harmless(data: bytes, cut: int) -> None:
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
def test_any_bytes_are_requests_or_an_error(data: bytes, cut: int) -> None:
    harmless(data, cut)


def test_twenty_thousand_damaged_requests_break_nothing() -> None:
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
            put = rng.choice((rng.randbytes(rng.randrange(3)), b"\r\n", b":", b" ", b"%", b"%zz", b"\x00", b"9" * 20))
            data = data[:at] + put + data[at + rng.randrange(3) :]
        harmless(data, rng.randrange(len(data) + 1))


# Responses


def test_a_response_tells_its_length_and_date() -> None:
    response = encode_response("200 OK", [("Content-Type", "text/plain")], b"hello", "today", close=False)
    assert response == b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nDate: today\r\n\r\nhello"


def test_the_last_response_says_so() -> None:
    assert b"\r\nConnection: close\r\n" in encode_response("200 OK", [], b"", "today", close=True)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_response_without_a_body_has_no_length(status: str) -> None:
    assert b"Content-Length" not in encode_response(status, [], b"", "today", close=False)


def test_a_length_that_is_given_is_not_given_twice() -> None:
    response = encode_response("200 OK", [("content-length", "7"), ("DATE", "then")], b"", "today", close=False)
    assert response.lower().count(b"content-length") == 1
    assert b"today" not in response


@pytest.mark.parametrize("text", ["a\r\nSet-Cookie: x", "a\nb", "a\rb", "a\r\n\r\nbody"])
@pytest.mark.parametrize("where", ["name", "value", "status"])
def test_a_header_cannot_break_out_of_its_line(text: str, where: str) -> None:
    header = (text, "v") if where == "name" else ("X", text)
    status = f"200 {text}" if where == "status" else "200 OK"
    with pytest.raises(ValueError, match="line break"):
        encode_response(status, [header] if where != "status" else [], b"", "today", close=False)
