"""Which web pages may talk to this server."""

from typing import Any

import pytest

from socket_server.config import from_environ
from socket_server.transport.engineio.origins import Origins

APP = "https://app.example.com"
ORIGINS = Origins([APP, "http://localhost:5173"])
SERVER = "server.example:3001"


def request(origin: str | None = None, host: str = SERVER, method: str = "GET", site: str | None = None) -> dict[str, Any]:
    environ = {"REQUEST_METHOD": method, "HTTP_HOST": host}
    if origin is not None:
        environ["HTTP_ORIGIN"] = origin
    if site is not None:
        environ["HTTP_SEC_FETCH_SITE"] = site
    return environ


@pytest.mark.parametrize("origin", [APP, "http://localhost:5173", "https://App.Example.COM"])
def test_a_page_of_a_configured_origin_is_allowed(origin: str) -> None:
    assert ORIGINS.allow(request(origin))
    assert ORIGINS.allow(request(origin, site="cross-site"))


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "file://",
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
        "https://" + "a" * 30_000,
        f"http://{SERVER}",  # an http page can be forged on its way
        f"ws://{SERVER}",
    ],
)
def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    assert not ORIGINS.allow(request(origin))


@pytest.mark.parametrize("site", [None, "none", "same-origin", "Same-Origin"])
def test_a_request_that_no_foreign_page_makes_is_allowed_without_an_origin(site: str | None) -> None:
    assert ORIGINS.allow(request(site=site))


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", " same-site ", "cross-site, none", "", "future"])
def test_a_request_of_a_foreign_page_without_an_origin_is_refused(site: str) -> None:
    assert not ORIGINS.allow(request(site=site))


def test_a_star_allows_every_origin() -> None:
    for origin in ("https://anyone.example", "null", "http://[::1"):
        assert Origins(["*"]).allow(request(origin))
    assert Origins(["*"]).allow(request(site="cross-site"))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (f"https://{SERVER}", SERVER),
        (f"wss://{SERVER}", SERVER),  # mobile libraries state the URL that they connect to
        ("https://server.example", "server.example:443"),
        ("wss://server.example:443", "server.example"),
        ("https://Server.Example", "server.example"),
        ("http://localhost:3001", "localhost:3001"),  # nothing can come between
        ("ws://127.0.0.1:3001", "127.0.0.1:3001"),
        ("http://[::1]:3001", "[::1]:3001"),
    ],
)
def test_the_servers_own_origin_is_allowed(origin: str, host: str) -> None:
    assert ORIGINS.allow(request(origin, host=host))


@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
def test_in_development_the_servers_own_origin_is_allowed_in_every_scheme(scheme: str) -> None:
    own = Origins([APP], development=True)
    assert own.allow(request(f"{scheme}://{SERVER}"))
    assert own.allow(request(APP))
    for origin in (
        "http://server.example",
        "http://server.example:3002",
        "http://evil.example",
        "null",
        "",
        "ftp://" + SERVER,
    ):
        assert not own.allow(request(origin))
    assert not own.allow(request("null", host=""))
    assert not own.allow({"HTTP_ORIGIN": "null"})
    assert not own.allow({"HTTP_ORIGIN": "http://"})
    assert not own.allow({"HTTP_ORIGIN": "https://"})


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example.com", True),
        ("https://a.b.c.example.com", True),
        ("https://example.com", False),
        ("https://.example.com", False),
        ("https://evilexample.com", False),
        ("https://evil.com/.example.com", False),
        ("https://evil.com#.example.com", False),
        ("https://user@app.example.com", False),
        ("https://app.example.com.evil.com", False),
        ("https://app.example.com:8443", False),
        ("http://app.example.com", False),
        ("https://..example.com", False),
        ("https://a..example.com", False),
        ("https://*.example.com", False),
    ],
)
def test_a_leading_wildcard_matches_any_name_below_a_domain(origin: str, allowed: bool) -> None:
    assert Origins(["https://*.example.com"]).allow(request(origin)) is allowed


def test_a_wildcard_has_the_scheme_and_the_port_that_are_configured() -> None:
    assert Origins(["https://*.example.com:8443"]).allow(request("https://a.example.com:8443"))
    assert not Origins(["https://*.example.com:8443"]).allow(request("https://a.example.com"))
    assert Origins(["http://*.example.com"]).allow(request("http://a.example.com"))
    assert not Origins(["https://*.example.com"]).allow(request("http://a.example.com"))
    assert Origins(["https://*.xn--4dbrk0ce.example"]).allow(request("https://a.xn--4dbrk0ce.example"))


@pytest.mark.parametrize("origin", ["null", "file://", "capacitor://localhost", "https://xn--bcher-kva.example"])
def test_origins_of_apps_and_internationalized_names_can_be_configured(origin: str) -> None:
    assert Origins([origin]).allow(request(origin))


@pytest.mark.parametrize(
    ("configured", "sent"),
    [
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://*.ישראל.example", "https://a.xn--4dbrk0ce.example"),
        ("HTTPS://App.Example.com:443/", "https://app.example.com"),
    ],
)
def test_an_origin_is_compared_as_the_settings_normalize_it(configured: str, sent: str) -> None:
    settings = from_environ({"APP_ENV": "development", "CLIENT_URL": configured})
    assert Origins(settings.client_origins).allow(request(sent))


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, SERVER, True),
        (APP, SERVER, True),
        (f"https://{SERVER}", SERVER, True),
        ("http://evil.example", SERVER, False),
        ("http://evil.example:3001", "evil.example:3001", False),  # DNS rebinding
        ("ws://evil.example:3001", "evil.example:3001", False),
        ("http://localhost:3001", "localhost:3001", True),
        ("http://192.168.1.5:3001", "192.168.1.5:3001", True),
        ("http://[fd00::5]:3001", "[fd00::5]:3001", True),
        ("http://[fd00::5]", "[fd00::5]", True),
        ("null", SERVER, False),
    ],
)
def test_without_an_api_key_a_page_that_may_be_rebound_is_refused(origin: str | None, host: str, allowed: bool) -> None:
    assert Origins([APP], development=True).allow_without_key(request(origin, host=host)) is allowed


def test_an_allowed_origin_gets_cors_headers_for_itself_alone() -> None:
    headers = dict(ORIGINS.headers(request(APP)))
    assert headers["Access-Control-Allow-Origin"] == APP
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert headers["Vary"] == "Origin"


def test_with_a_star_the_answer_names_the_origin_that_asked() -> None:
    headers = dict(Origins(["*"]).headers(request("https://x.example")))
    assert headers["Access-Control-Allow-Origin"] == "https://x.example"


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null", ""])
def test_other_origins_get_no_cors_headers(origin: str | None) -> None:
    assert ORIGINS.headers(request(origin)) == [("Vary", "Origin")]
    assert ORIGINS.headers(request(origin, method="OPTIONS")) == [("Vary", "Origin")]


def test_a_preflight_is_answered_with_what_may_be_sent() -> None:
    headers = dict(ORIGINS.headers(request(APP, method="OPTIONS")))
    assert {"GET", "POST"} <= set(headers["Access-Control-Allow-Methods"].split(", "))
    assert {"Authorization", "Content-Type", "Idempotency-Key"} <= set(headers["Access-Control-Allow-Headers"].split(", "))
    assert "Access-Control-Allow-Methods" not in dict(ORIGINS.headers(request(APP)))
