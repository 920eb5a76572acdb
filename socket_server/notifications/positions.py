"""Positions: the offset after which a reconnecting client needs a replay (docs/protocol.md, section 6). Pure functions.

The stock client (socket.io-client 4.6 and later) keeps the `pid` of its first CONNECT reply and the last argument of the
last event, and sends both within `auth` when it reconnects. Source: the client's connection state recovery.
"""

import secrets
from dataclasses import dataclass
from typing import Any

_MAX_DIGITS = 19  # offsets are 64-bit numbers
_MAX_PID = 64  # characters


@dataclass(frozen=True, slots=True)
class Position:
    """Where the replay for a client begins.

    after: the offset that the client sent; None: it sent something that is not an offset. certain: `after` is the offset of
    the last event that the client received; no other source replaces it. start: the head when the client's pid was made;
    used if the client has received nothing since.
    """

    after: int | None
    certain: bool = False
    start: int | None = None

    def within(self, head: int) -> int | None:
        """Return the offset to replay from; None if there is none, or only offsets after the head."""
        for offset in (self.after, None if self.certain else self.start):
            if offset is not None and offset <= head:
                return offset
        return None


def parse_offset(value: Any) -> int | None:
    """Return the offset that a client sent as a string or a number; None if it is not an offset."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= _MAX_DIGITS:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**_MAX_DIGITS:
        return value
    return None


def new_pid(start: int) -> str:
    """Return a new pid for a client that starts after this offset.

    It is random, so that it identifies the connections of one client. It is not a credential.
    """
    return f"{secrets.token_urlsafe(9)}.{start}"


def pid_of(auth: Any) -> str | None:
    """Return the pid in the `auth` of a handshake, or None if new_pid() cannot have made it."""
    pid = auth.get("pid") if isinstance(auth, dict) else None
    return pid if isinstance(pid, str) and _start_of(pid) is not None else None


def _start_of(pid: str) -> int | None:
    name, _, start = pid.partition(".")
    return parse_offset(start) if name and len(pid) <= _MAX_PID and pid.isascii() else None


def of_handshake(auth: Any) -> Position | None:
    """Return the position in the `auth` of a handshake; None if there is none: the client starts at the head."""
    if not isinstance(auth, dict):
        return None
    if auth.get("pid") is not None and auth.get("offset") is not None:
        return Position(parse_offset(auth["offset"]), certain=True)
    pid = pid_of(auth)
    start = None if pid is None else _start_of(pid)
    if auth.get("lastId") is not None:
        return Position(parse_offset(auth["lastId"]), start=start)
    return None if start is None else Position(start, start=start)


def with_event(position: Position | None, data: Any) -> Position | None:
    """Return the position after an event `auth`: its `lastId`, if it has one, replaces a position that is not certain."""
    last_id = data.get("lastId") if isinstance(data, dict) else None
    if last_id is None or (position is not None and position.certain):
        return position
    return Position(parse_offset(last_id), start=None if position is None else position.start)
