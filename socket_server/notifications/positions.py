"""Where a client was when it left: what the handshake and the event `auth` say about it (contract, section 6). Pure.

The stock client (socket.io-client 4.6 and later) keeps the `pid` of its first CONNECT reply and the last argument of the
last event, and sends both within `auth` whenever it comes back. Source: the client's connection state recovery.
"""

import secrets
from dataclasses import dataclass
from typing import Any

_MAX_DIGITS = 19  # offsets are 64-bit numbers
_MAX_PID = 64


@dataclass(frozen=True, slots=True)
class Position:
    """A place to go on from.

    after: the last offset that the client has seen, as it says; None: that is no offset. certain: it is the client's own
    word of the last event it got, which nothing else outdoes. start: where its pid began; it holds where the client has
    not got anything since.
    """

    after: int | None
    certain: bool = False
    start: int | None = None

    def within(self, head: int) -> int | None:
        """Return the offset to go on from; None where the client named none, or one that lies after the head."""
        for offset in (self.after, None if self.certain else self.start):
            if offset is not None and offset <= head:
                return offset
        return None


def parse_offset(value: Any) -> int | None:
    """Return an offset from what a client sent for one; None where it is none."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= _MAX_DIGITS:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**_MAX_DIGITS:
        return value
    return None


def new_pid(start: int) -> str:
    """Return a new pid for a client that starts after this offset.

    It is random so that one client's connections can be told from another's; it is no credential.
    """
    return f"{secrets.token_urlsafe(9)}.{start}"


def pid_of(auth: Any) -> str | None:
    """Return the pid that a handshake brings back, if it is one of ours."""
    pid = auth.get("pid") if isinstance(auth, dict) else None
    return pid if isinstance(pid, str) and _start_of(pid) is not None else None


def _start_of(pid: str) -> int | None:
    name, _, start = pid.partition(".")
    return parse_offset(start) if name and len(pid) <= _MAX_PID and pid.isascii() else None


def of_handshake(auth: Any) -> Position | None:
    """Return the position in the `auth` of a handshake; None where it names none: the client starts now."""
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
    """Return the position once the event `auth` has said its `lastId`, if it has one."""
    last_id = data.get("lastId") if isinstance(data, dict) else None
    if last_id is None or (position is not None and position.certain):
        return position
    return Position(parse_offset(last_id), start=None if position is None else position.start)
