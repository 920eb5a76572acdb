"""Find the credentials of a connection: the first place that has any decides (docs/protocol.md, "Authentication").

Pure functions over the content of the handshake. Verification is in tokens.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from socket_server.auth.tokens import invalid_format
from socket_server.auth.user_ids import user_id_text
from socket_server.errors import AuthenticationError


@dataclass(frozen=True, slots=True)
class Credentials:
    """A token as presented, and the user id given beside it (None if none was given)."""

    token: str = field(repr=False)
    user_id: str | None


def missing_credentials() -> AuthenticationError:
    return AuthenticationError("Not authenticated - missing credentials", "missing_credentials")


def user_mismatch() -> AuthenticationError:
    return AuthenticationError("UserId does not match JWT", "user_mismatch")


def from_handshake(
    auth: Any, cookie: str, authorization: str, jwt_cookie: str = "jwt", user_cookie: str = "id"
) -> Credentials | None:
    """Return the credentials of a Socket.IO CONNECT, or None if it has none (the client may send the event `auth` later).

    auth: the `auth` object of the CONNECT packet, any JSON value.
    cookie, authorization: these headers of the handshake request; empty if absent.
    Raises AuthenticationError if the deciding place holds unusable credentials.
    """
    if isinstance(auth, Mapping) and _has_token(auth):
        return _of_object(auth)
    token = cookie_value(cookie, jwt_cookie)
    if token:
        user_id = cookie_value(cookie, user_cookie)
        if not user_id:
            raise missing_credentials()
        return Credentials(_without_scheme(token), user_id)
    if authorization[:7].lower() == "bearer ":
        return Credentials(_without_scheme(authorization), None)
    return None


def cookie_value(header: str, name: str) -> str:
    """Return a cookie's value without its quotes and percent-encoding; "" if the header has no such cookie.

    The first of several counts: browsers send the cookie of the most specific path first (RFC 6265, section 5.4).
    header: as WSGI passes it, each byte as one character. The value is read as UTF-8; bytes that are no UTF-8 are read as
    Latin-1.
    """
    for pair in header.split(";"):
        found, _, value = pair.partition("=")
        if found.strip() == name:
            return _decoded(value.strip().strip('"'))
    return ""


def _decoded(value: str) -> str:
    if value.isascii():
        return unquote(value)
    try:
        return unquote_to_bytes(value.encode("latin-1")).decode()
    except UnicodeError:
        return unquote(value)


def from_event(data: Any) -> Credentials:
    """Return the credentials of an `auth` event `{userId, jwt}`. Raises AuthenticationError."""
    if not isinstance(data, Mapping) or not _has_token(data):
        raise missing_credentials()
    return _of_object(data)


def _has_token(source: Mapping[str, Any]) -> bool:
    # A page whose user has not signed in yet sends null or "". That is a missing token, not an invalid one.
    return any(source.get(name) not in (None, "") for name in ("token", "jwt"))


def _of_object(source: Mapping[str, Any]) -> Credentials:
    token = source.get("token") if source.get("token") not in (None, "") else source.get("jwt")
    if not isinstance(token, str):
        raise invalid_format()
    given = source.get("userId")
    if given is None:
        return Credentials(_without_scheme(token), None)
    user_id = user_id_text(given)
    if user_id is None:
        raise user_mismatch()
    return Credentials(_without_scheme(token), user_id)


def _without_scheme(token: str) -> str:
    token = token.strip()
    return token[7:].lstrip() if token[:7].lower() == "bearer " else token
