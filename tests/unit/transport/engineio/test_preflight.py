"""Which headers a page may send after a preflight request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.engineio.preflight import headers


def allowed(requested: str) -> list[str]:
    return dict(headers(requested))["Access-Control-Allow-Headers"].split(", ")


def test_the_headers_and_methods_of_the_api_are_allowed_unasked() -> None:
    assert allowed("") == ["Authorization", "Content-Type", "Idempotency-Key"]
    assert dict(headers(""))["Access-Control-Allow-Methods"] == "GET, POST, DELETE, OPTIONS"


@pytest.mark.parametrize("name", ["traceparent", "tracestate", "baggage", "x-request-id", "X-B3-TraceId", " x-a "])
def test_a_harmless_header_is_allowed_if_it_is_requested(name: str) -> None:
    assert allowed(f"content-type,{name}")[3:] == [name.strip().lower()]


@pytest.mark.parametrize(
    "name",
    ["cookie", "x-forwarded-for", "x-real-ip", "x-", "xx", "x-a b", "x-a\r\nset-cookie: a=b", "x-" + "a" * 70, "é", "*"],
)
def test_no_other_header_is_allowed(name: str) -> None:
    assert len(allowed(name)) == 3


@given(st.text())
def test_no_request_makes_a_header_that_is_long_or_malformed(requested: str) -> None:
    names = dict(headers(requested))["Access-Control-Allow-Headers"]
    assert len(names) < 2_000
    assert names.isascii()
    assert "\n" not in names
