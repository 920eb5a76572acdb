"""Which web sites may talk to this server."""

from typing import Any

import pytest

from socket_server.transport.engineio.origins import Origins

APP = "https://app.example.com"
ORIGINS = Origins([APP, "http://localhost:5173"])


def request(origin: str | None = None, host: str = "server.example:3001", method: str = "GET") -> dict[str, Any]:
    environ = {"REQUEST_METHOD": method, "HTTP_HOST": host}
    return environ if origin is None else {**environ, "HTTP_ORIGIN": origin}


@pytest.mark.parametrize("origin", [APP, "http://localhost:5173"])
def test_a_page_of_an_allowed_site_is_served(origin: str) -> None:
    assert ORIGINS.allow(request(origin))


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "https://evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.example",
        "https://evil.example/https://app.example.com",
        "https://sub.app.example.com",
        "https://app.example.com/",
        "https://app.example.com, https://evil.example",
        "http://localhost:5174",
        "http://localhost",
        "http://[::1",
        "*",
        "http://server.example:3001",
    ],
)
def test_a_page_of_another_site_is_not(origin: str) -> None:
    assert not ORIGINS.allow(request(origin))


def test_what_is_no_web_page_sends_no_origin_and_is_served() -> None:
    assert ORIGINS.allow(request())


def test_a_star_allows_every_site() -> None:
    for origin in ("https://anyone.example", "null", "http://[::1"):
        assert Origins(["*"]).allow(request(origin))


def test_where_the_server_has_a_page_its_own_origin_counts_too() -> None:
    own = Origins([APP], same_origin=("http", "https"))
    assert own.allow(request("https://server.example:3001"))
    assert not Origins([APP], same_origin=("https",)).allow(request("http://server.example:3001"))
    assert Origins([APP], same_origin=("https",)).allow(request("http://localhost:3001", host="localhost:3001"))
    assert not Origins([APP]).allow(request("http://localhost:3001", host="localhost:3001"))
    assert own.allow(request("http://server.example:3001"))
    assert own.allow(request(APP))
    for origin in (
        "http://server.example",
        "http://server.example:3002",
        "http://evil.example",
        "null",
        "",
        "http://[::1",
        "ftp://server.example:3001",
    ):
        assert not own.allow(request(origin))
    assert not own.allow(request("null", host=""))
    assert not own.allow({"HTTP_ORIGIN": "null"})
    assert not own.allow({"HTTP_ORIGIN": "http://"})


def test_an_allowed_site_gets_cors_headers_for_itself_alone() -> None:
    headers = dict(ORIGINS.headers(request(APP)))
    assert headers["Access-Control-Allow-Origin"] == APP
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert headers["Vary"] == "Origin"


def test_a_star_is_answered_with_the_origin_that_asked() -> None:
    headers = dict(Origins(["*"]).headers(request("https://x.example")))
    assert headers["Access-Control-Allow-Origin"] == "https://x.example"


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null", ""])
def test_nobody_else_is_answered(origin: str | None) -> None:
    assert ORIGINS.headers(request(origin)) == [("Vary", "Origin")]
    assert ORIGINS.headers(request(origin, method="OPTIONS")) == [("Vary", "Origin")]


def test_a_preflight_is_told_what_may_be_sent() -> None:
    headers = dict(ORIGINS.headers(request(APP, method="OPTIONS")))
    assert {"GET", "POST"} <= set(headers["Access-Control-Allow-Methods"].split(", "))
    assert {"Authorization", "Content-Type", "Idempotency-Key"} <= set(headers["Access-Control-Allow-Headers"].split(", "))
    assert "Access-Control-Allow-Methods" not in dict(ORIGINS.headers(request(APP)))
