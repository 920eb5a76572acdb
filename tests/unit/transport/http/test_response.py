"""HTTP responses as bytes."""

import pytest

from socket_server.transport.http.response import encode_response


def test_a_response_has_its_length_and_date() -> None:
    response = encode_response("200 OK", [("Content-Type", "text/plain")], b"hello", "today", close=False)
    assert response == b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nDate: today\r\n\r\nhello"


def test_the_last_response_says_that_the_connection_is_closed() -> None:
    assert b"\r\nConnection: close\r\n" in encode_response("200 OK", [], b"", "today", close=True)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_response_without_a_body_has_no_length(status: str) -> None:
    assert b"Content-Length" not in encode_response(status, [], b"", "today", close=False)


def test_a_given_length_and_date_are_not_repeated() -> None:
    response = encode_response("200 OK", [("content-length", "7"), ("DATE", "then")], b"", "today", close=False)
    assert response.lower().count(b"content-length") == 1
    assert b"today" not in response


@pytest.mark.parametrize("text", ["a\r\nSet-Cookie: x", "a\nb", "a\rb", "a\r\n\r\nbody"])
@pytest.mark.parametrize("where", ["name", "value", "status"])
def test_a_header_cannot_contain_a_line_break(text: str, where: str) -> None:
    header = (text, "v") if where == "name" else ("X", text)
    status = f"200 {text}" if where == "status" else "200 OK"
    with pytest.raises(ValueError, match="line break"):
        encode_response(status, [header] if where != "status" else [], b"", "today", close=False)
