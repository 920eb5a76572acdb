"""Paths have one normal form."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.http import path

USERS = "/users/<any_text:user_id>/notifications"


@pytest.mark.parametrize(
    "raw", ["/", "/stats", "/broadcast/", "/a/b/c", "/a..b/...", "/.well-known/x", "/a;b=c/d,e", "/~a/!$&'()*+:@", "/-/_"]
)
def test_a_path_in_normal_form_is_itself(raw: str) -> None:
    assert path.decode(raw.encode()) == raw


@pytest.mark.parametrize(
    "raw",
    [
        *("", "stats", "*", "http://x/stats", "HTTP://x/stats", "x:80", "?a"),
        *("//", "//stats", "/stats//", "/a//b", "///"),
        *("/.", "/..", "/./stats", "/stats/.", "/x/../stats", "/stats/..", "/../stats", "/./", "/../"),
        *("/a\\b", "/\\stats", "/a#b", "/a b", "/a\tb", "/a\x00b", "/a|b", "/a^b", '/a"b', "/<a>", "/ש", "/é"),
        *("/%", "/%a", "/a%2", "/%zz", "/%2g", "/%FF", "/%C0%AF", "/%E0%80%AF", "/%ED%A0%80"),
    ],
)
def test_any_other_path_is_none(raw: str) -> None:
    assert path.decode(raw.encode()) is None


@given(st.text(min_size=1))
def test_any_text_can_be_a_segment_percent_encoded(text: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))
    decoded = path.decode(f"/users/{encoded}/x".encode())
    try:
        expected: str | None = f"/users/{text}/x".encode().decode("latin-1")
    except UnicodeEncodeError:
        expected = None
    assert decoded == expected


@given(st.binary(max_size=40))
def test_any_bytes_are_decoded_or_refused(raw: bytes) -> None:
    decoded = path.decode(b"/" + raw)
    assert decoded is None or decoded.startswith("/")


@pytest.mark.parametrize("user_id", ["7", ".", "..", "a/b", "/", "//", "a b", "%2F", "ש", "a;b", "notifications"])
def test_a_variable_segment_may_hold_any_text(user_id: str) -> None:
    raw = "".join(f"%{byte:02X}" for byte in user_id.encode())
    assert path.is_literal(f"/users/{raw}/notifications", USERS)
    if user_id not in (".", ".."):
        assert path.is_literal(f"/users/{quote(user_id, safe='')}/notifications", USERS)


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        ("/stat%73", "/stats"),
        ("/%73tats", "/stats"),
        ("/stats/", "/stats"),
        ("/broadcast%2Fbatch", "/broadcast/batch"),
        ("/users/7%2Fnotifications", USERS),
        ("/users%2F7/notifications", USERS),
        ("/users%2Fa/notifications/notifications", USERS),
        ("/users/7/x%2Fnotifications", USERS),
        ("/users/a/b/notifications", USERS),
        ("/user%73/7/notifications", USERS),
    ],
)
def test_the_fixed_segments_of_a_route_cannot_be_escaped(raw: str, rule: str) -> None:
    assert not path.is_literal(raw, rule)


def test_a_path_segment_stands_for_any_number() -> None:
    assert path.is_literal("/static/a", "/static/<path:filename>")
    assert path.is_literal("/static/a/b/c.js", "/static/<path:filename>")
    assert not path.is_literal("/stati%63/a/b", "/static/<path:filename>")
