"""The places for credentials: the first that is present decides."""

# ruff: noqa: PT017 - what comes may be refused or not, which pytest.raises cannot say

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from socket_server.auth.credentials import Credentials, cookie_value, from_event, from_handshake
from socket_server.errors import AuthenticationError

COOKIE = "jwt=cookie-token; id=2"
HEADER = "Bearer header-token"


def refusal(call: Any, *arguments: Any) -> tuple[str, str]:
    with pytest.raises(AuthenticationError) as caught:
        call(*arguments)
    return caught.value.message, caught.value.code


MISSING = ("Not authenticated - missing credentials", "missing_credentials")
BAD_FORMAT = ("Invalid JWT format", "invalid_format")
MISMATCH = ("UserId does not match JWT", "user_mismatch")


# The order of the places


def test_the_auth_object_comes_before_cookies_and_header() -> None:
    assert from_handshake({"token": "t"}, COOKIE, HEADER) == Credentials("t", None)


def test_cookies_come_before_the_header() -> None:
    assert from_handshake(None, COOKIE, HEADER) == Credentials("cookie-token", "2")


def test_the_header_comes_last() -> None:
    assert from_handshake(None, "", HEADER) == Credentials("header-token", None)
    assert from_handshake(None, "theme=dark; id=2", HEADER) == Credentials("header-token", None)


def test_where_no_place_has_a_token_there_are_no_credentials_yet() -> None:
    assert from_handshake(None, "", "") is None
    assert from_handshake({}, "theme=dark", "Basic YTpi") is None


@pytest.mark.parametrize("token", [7, 0, True, False, [], {}, ["t"], 1.5])
def test_a_bad_token_is_not_rescued_by_a_later_place(token: Any) -> None:
    assert refusal(from_handshake, {"token": token}, COOKIE, HEADER) == BAD_FORMAT


def test_a_cookie_without_its_user_is_not_rescued_by_the_header() -> None:
    assert refusal(from_handshake, None, "jwt=t", HEADER) == MISSING


@pytest.mark.parametrize(
    "auth", [None, {}, {"token": None}, {"token": ""}, {"jwt": ""}, {"token": None, "jwt": ""}, {"userId": "9"}]
)
def test_an_auth_object_without_a_token_leaves_the_decision_to_the_next_place(auth: Any) -> None:
    assert from_handshake(auth, COOKIE, HEADER) == Credentials("cookie-token", "2")


@pytest.mark.parametrize("auth", ["t", 7, [], ["token"], True, 1.5])
def test_an_auth_that_is_no_object_is_no_place(auth: Any) -> None:
    assert from_handshake(auth, "", HEADER) == Credentials("header-token", None)


# The auth object


def test_jwt_is_taken_for_token() -> None:
    assert from_handshake({"jwt": "t", "userId": "1"}, "", "") == Credentials("t", "1")
    assert from_handshake({"token": "", "jwt": "t"}, "", "") == Credentials("t", None)


def test_token_comes_before_jwt() -> None:
    assert from_handshake({"token": "a", "jwt": "b"}, "", "") == Credentials("a", None)


@pytest.mark.parametrize(("given_id", "text"), [("1", "1"), (1, "1"), (0, "0"), (1.0, "1"), (None, None), ("a b", "a b")])
def test_the_user_id_is_a_string_or_a_number(given_id: Any, text: str | None) -> None:
    assert from_handshake({"token": "t", "userId": given_id}, "", "") == Credentials("t", text)


@pytest.mark.parametrize("given_id", [True, False, [], {}, ["1"], 1.5])
def test_a_user_id_of_another_type_matches_no_token(given_id: Any) -> None:
    assert refusal(from_handshake, {"token": "t", "userId": given_id}, "", "") == MISMATCH


# The prefix


@pytest.mark.parametrize("prefix", ["bearer ", "Bearer ", "BEARER ", "bEaReR ", "Bearer   ", "  Bearer "])
def test_a_token_may_carry_bearer_in_any_case(prefix: str) -> None:
    assert from_handshake({"token": prefix + "t"}, "", "") == Credentials("t", None)
    assert from_event({"jwt": prefix + "t", "userId": "1"}) == Credentials("t", "1")
    assert from_handshake(None, f"jwt={quote(prefix)}t; id=1", "") == Credentials("t", "1")


@pytest.mark.parametrize("prefix", ["bearer%20", "Bearer%20", "BEARER%20", "bearer "])
def test_in_a_cookie_the_space_may_be_encoded_or_not(prefix: str) -> None:
    assert from_handshake(None, f"jwt={prefix}t; id=1", "") == Credentials("t", "1")
    assert from_handshake(None, f'id=1; jwt="{prefix}t"', "") == Credentials("t", "1")


@pytest.mark.parametrize("header", ["Bearer t", "bearer t", "BEARER t", "Bearer   t"])
def test_the_header_scheme_has_any_case(header: str) -> None:
    assert from_handshake(None, "", header) == Credentials("t", None)


@pytest.mark.parametrize("header", ["Basic t", "t", "Token t", "Bearer", "bearert t", ""])
def test_another_scheme_is_no_credential(header: str) -> None:
    assert from_handshake(None, "", header) is None


def test_only_one_prefix_is_taken_off() -> None:
    found = from_handshake({"token": "bearer bearer t"}, "", "")
    assert found is not None
    assert found.token == "bearer t"  # which no verifier takes


# Cookies


def test_the_user_cookie_is_decoded() -> None:
    assert from_handshake(None, "jwt=t; id=a%40b.c", "") == Credentials("t", "a@b.c")


@pytest.mark.parametrize("cookie", ["jwt=t", "jwt=t; id=", 'jwt=t; id=""', "jwt=t; Id=1"])
def test_with_cookies_the_user_id_is_required(cookie: str) -> None:
    assert refusal(from_handshake, None, cookie, "") == MISSING


@pytest.mark.parametrize("cookie", ["jwt=; id=1", 'jwt=""; id=1', "jwt; id=1", "id=1", "JWT=t; id=1", ";;;", "="])
def test_an_empty_token_cookie_is_no_place(cookie: str) -> None:
    assert from_handshake(None, cookie, HEADER) == Credentials("header-token", None)


def test_the_cookies_have_the_configured_names() -> None:
    cookie = "jwt=wrong; id=wrong; session=t; user=1"
    assert from_handshake(None, cookie, "", "session", "user") == Credentials("t", "1")


@pytest.mark.parametrize("other", ["name=\xff", "name=caf\xe9", "\xe9=1", "name=\xd7\xa9"])
def test_another_applications_cookie_in_any_encoding_does_no_harm(other: str) -> None:
    # WSGI hands header bytes over as latin-1 (PEP 3333); another application of the domain may set what it likes.
    assert from_handshake(None, f"{other}; {COOKIE}", "") == Credentials("cookie-token", "2")
    assert from_handshake(None, other, "") is None
    assert from_handshake({"token": "t"}, other, "") == Credentials("t", None)


# The event


@pytest.mark.parametrize(
    "data", [None, {}, [], "t", 7, {"jwt": None}, {"jwt": ""}, {"userId": "1"}, {"token": "", "jwt": None}]
)
def test_an_auth_event_without_a_token_misses_its_credentials(data: Any) -> None:
    assert refusal(from_event, data) == MISSING


@pytest.mark.parametrize("token", [7, True, [], {}, 1.5])
def test_an_auth_event_with_a_token_that_is_no_text_has_a_bad_format(token: Any) -> None:
    assert refusal(from_event, {"userId": "1", "jwt": token}) == BAD_FORMAT


def test_an_auth_event_brings_user_and_token() -> None:
    assert from_event({"userId": "1", "jwt": "t"}) == Credentials("t", "1")
    assert from_event({"userId": 1, "token": "t"}) == Credentials("t", "1")


# Whatever comes


def test_a_token_does_not_show_when_credentials_are_printed() -> None:
    assert "secret" not in repr(Credentials("secret", "1"))


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(["token", "jwt", "userId", "x"]) | st.text(max_size=5), children, max_size=4)
    ),
    max_leaves=8,
)
latin_1 = st.text(st.characters(max_codepoint=255), max_size=60)
cookie_header = (
    st.lists(
        st.tuples(st.sampled_from(["jwt", "id", "x", ""]), latin_1).map("=".join) | latin_1,
        max_size=5,
    ).map("; ".join)
    | latin_1
)


def harmless(call: Any, *arguments: Any) -> None:
    try:
        found = call(*arguments)
    except AuthenticationError as error:
        assert (error.message, error.code) in (MISSING, BAD_FORMAT, MISMATCH)
    else:
        assert found is None or isinstance(found, Credentials)
        if found is not None:
            assert isinstance(found.token, str)
            assert found.user_id is None or isinstance(found.user_id, str)


@given(any_json, cookie_header, latin_1)
@example({"token": "\x00"}, "jwt=%ff; id=%ff", "Bearer ")
@example(None, 'jwt="\\377"; id="\\', "bearer  ")
def test_whatever_a_handshake_carries_is_credentials_none_or_a_refusal(auth: Any, cookie: str, header: str) -> None:
    harmless(from_handshake, auth, cookie, header)


@given(any_json)
def test_whatever_an_auth_event_carries_is_credentials_or_a_refusal(data: Any) -> None:
    harmless(from_event, data)


@given(st.text(st.sampled_from("abcXYZ019-_."), min_size=1), st.text(min_size=1))
def test_a_token_and_a_user_survive_the_way_through_quoted_cookies(token: str, user_id: str) -> None:
    try:
        user_id.encode()
    except UnicodeEncodeError:
        return
    cookie = f"jwt={quote(token)}; id={quote(user_id, safe='')}"
    assert from_handshake(None, cookie, "") == Credentials(token, user_id)
    assert from_handshake(json.loads(json.dumps({"token": token, "userId": user_id})), "", "") == Credentials(
        token, user_id
    )


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("משתמש".encode(), "משתמש"),
        (b"%D7%9E" + "ש".encode(), "מש"),
        (b"caf\xe9", "café"),
        (b"%FF", "\ufffd"),
        ('"משתמש"'.encode(), "משתמש"),
    ],
)
def test_a_cookies_bytes_are_read_as_utf_8_and_else_as_latin_1(sent: bytes, value: str) -> None:
    header = (b"a=b; id=" + sent).decode("latin-1")  # as WSGI passes it
    assert cookie_value(header, "id") == value
