"""Credentials: where a connection says who it is. The first place present decides (contract, section 3).

Pure functions over what the handshake carried; nothing here verifies anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from socket_server.auth.tokens import invalid_format, user_id_text
from socket_server.errors import AuthenticationError


@dataclass(frozen=True, slots=True)
class Credentials:
    """A token as it was presented, and the user id given beside it (None where none was)."""

    token: str = field(repr=False)
    user_id: str | None


def missing_credentials() -> AuthenticationError:
    return AuthenticationError("Not authenticated - missing credentials", "missing_credentials")


def user_mismatch() -> AuthenticationError:
    return AuthenticationError("UserId does not match JWT", "user_mismatch")


def from_handshake(
    auth: Any, cookie: str, authorization: str, jwt_cookie: str = "jwt", user_cookie: str = "id"
) -> Credentials | None:
    """Return the credentials of a Socket.IO CONNECT, or None where it has none (it may send `auth` later).

    auth: the `auth` object of the CONNECT packet, any JSON; cookie, authorization: those headers of the handshake
    request, empty where absent. Raises AuthenticationError where the place that decides is unusable.
    """
    if isinstance(auth, Mapping) and _given(auth):
        return _of_object(auth)
    token = cookie_value(cookie, jwt_cookie)
    if token:
        user_id = cookie_value(cookie, user_cookie)
        if not user_id:
            raise missing_credentials()
        return Credentials(_bare(token), user_id)
    if authorization[:7].lower() == "bearer ":
        return Credentials(_bare(authorization), None)
    return None


def cookie_value(header: str, name: str) -> str:
    """Return a cookie's value with its quotes and percent encoding undone; "" where there is none.

    The first of several counts: browsers send the one of the most specific path first (RFC 6265 section 5.4). Cookies of
    other applications may hold anything, and do not matter.
    """
    for pair in header.split(";"):
        found, _, value = pair.partition("=")
        if found.strip() == name:
            return unquote(value.strip().strip('"'))
    return ""


def from_event(data: Any) -> Credentials:
    """Return the credentials of an `auth` event `{userId, jwt}`. Raises AuthenticationError."""
    if not isinstance(data, Mapping) or not _given(data):
        raise missing_credentials()
    return _of_object(data)


def _given(source: Mapping[str, Any]) -> bool:
    # null and "" are what a page sends whose user has not signed in yet: no token, not a bad one.
    return any(source.get(name) not in (None, "") for name in ("token", "jwt"))


def _of_object(source: Mapping[str, Any]) -> Credentials:
    token = source.get("token") if source.get("token") not in (None, "") else source.get("jwt")
    if not isinstance(token, str):
        raise invalid_format()
    given = source.get("userId")
    if given is None:
        return Credentials(_bare(token), None)
    user_id = user_id_text(given)
    if user_id is None:
        raise user_mismatch()
    return Credentials(_bare(token), user_id)


def _bare(token: str) -> str:
    token = token.strip()
    return token[7:].lstrip() if token[:7].lower() == "bearer " else token
