"""CLIENT_URL: origins as browsers write them, wildcards, and what can never match."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.config.addresses import origins
from socket_server.config.reader import Reader


def read(value: str, *, development: bool = False) -> tuple[tuple[str, ...], list[str]]:
    reader = Reader({"CLIENT_URL": value})
    return origins(reader, "CLIENT_URL", (), development=development), reader.problems


@pytest.mark.parametrize(
    ("value", "origin"),
    [
        ("https://*.example.com", "https://*.example.com"),
        ("HTTPS://*.Example.com:8443/", "https://*.example.com:8443"),
        ("https://*.example.com:443", "https://*.example.com"),
        ("https://דוגמה.co.il", "https://xn--6dbbec0c.co.il"),
        ("https://*.bücher.example", "https://*.xn--bcher-kva.example"),
        ("https://straße.example", "https://xn--strae-oqa.example"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("http://[0:0:0:0:0:0:0:1]:5173", "http://[::1]:5173"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("http://my_host:1", "http://my_host:1"),
        ("null", "null"),
        ("file://", "file://"),
        ("app://.", "app://."),
        ("ionic://localhost", "ionic://localhost"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_an_origin_is_what_browsers_send(value: str, origin: str) -> None:
    assert read(value) == ((origin,), [])


@pytest.mark.parametrize(
    "value",
    [
        "http://*.example.com",
        "https://*",
        "https://*.com",
        "https://*.*.example.com",
        "https://a.*.example.com",
        "https://a*.example.com",
        "https://*example.com",
        "https://*.127.0.0.1",
        "https://*.[::1]",
        "https://example.com:0",
        "https://example.com:99999",
        "https://example.com:x",
        "https://[::1",
        "https://::1",
        "https://999.1.1.1",
        "https://-a.example",
        "https://a..example",
        "https://" + "a" * 64 + ".example",
        "https://exam ple.com",
        "https://example.com\\x",
        "https://",
        "example.com",
    ],
)
def test_what_can_never_match_is_a_problem(value: str) -> None:
    found, problems = read(value)
    assert found == ()
    assert len(problems) == 1
    assert problems[0].startswith("CLIENT_URL has ")


def test_in_development_a_wildcard_may_be_plain_http() -> None:
    assert read("http://*.example.test:5173", development=True) == (("http://*.example.test:5173",), [])


@given(st.text())
def test_any_text_is_origins_or_problems(value: str) -> None:
    found, problems = read(value)
    assert len(found) + len(problems) == len([word for word in value.strip().split(",") if word.strip()])
    assert all(origin.isascii() for origin in found if origin.startswith("http"))
