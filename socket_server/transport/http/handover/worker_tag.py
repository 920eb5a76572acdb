"""Worker tags: how the id of a session names its worker, and how workers find each other."""

import os
import re
import secrets
import socket
import struct
from typing import Any

_TAG_BYTES = 5
_SID = re.compile(rf".+\.([0-9a-f]{{{2 * _TAG_BYTES}}})")

_CREDENTIALS = struct.Struct("3i")  # SO_PEERCRED: pid, uid, gid


def new_tag() -> str:
    """Return a tag for a worker that no other process has."""
    return secrets.token_hex(_TAG_BYTES)


def tag_of(sid: str) -> str | None:
    """Return the tag of the worker that made this session id; None if no worker can have made it."""
    match = _SID.fullmatch(sid)
    return match[1] if match else None


def socket_name(tag: str) -> str:
    """Return the name of the Unix socket on which a worker of this user listens."""
    return f"\0socket-server-{os.geteuid()}-{tag}"


def same_user(sock: Any) -> bool:
    """Return whether the process at the other end of a Unix socket runs as this process's user."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(credentials)[1] == os.geteuid())
