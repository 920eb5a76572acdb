"""Close a listening socket without resetting a connection.

When a listening socket is closed, the kernel resets the connections in its backlog, also those whose client has completed
the handshake and may have sent a request; the client cannot tell whether that was processed. So the socket first gets a
filter that drops new SYNs. Handshakes in progress complete, the backlog is accepted, and then there is nothing to reset.
A client whose SYN was dropped sends it again after a second (RFC 6298 section 2); by then the port refuses connections, or
the next server listens on it. Sources: socket(7), SO_ATTACH_FILTER; RFC 9293 section 3.1 for the flags.
"""

import ctypes
import os
import socket
import struct
import sys
from typing import Any

# How long to wait for handshakes in progress: more than a round trip from a back end or a proxy to its server.
HANDSHAKE_S = 0.1

_SO_ATTACH_FILTER = 26
_FLAGS_OFFSET = 13  # of the flags in a TCP header
_SYN, _ACK = 0x02, 0x10


def is_inherited(arbiter: Any) -> bool:
    """Return whether gunicorn inherited its listening sockets (systemd, `fd://`). They outlive it, as a filter would."""
    return bool(arbiter.systemd) or any(isinstance(address, int) for address in arbiter.cfg.address)


def is_open_in(pid: int, listener: Any) -> bool:
    """Return whether a process has this socket open too; True if that cannot be determined."""
    ours = os.fstat(listener.fileno())
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                other = os.stat(f"/proc/{pid}/fd/{fd}")
            except FileNotFoundError:
                continue  # closed a moment ago
            if (other.st_dev, other.st_ino) == (ours.st_dev, ours.st_ino):
                return True
    except OSError:
        return True
    return False


def drop_new_connections(listener: Any) -> bool:
    """Drop every SYN to this listening socket, as long as any process has it open. Return False if that is not possible
    (no TCP socket, not Linux, not allowed)."""
    if sys.platform != "linux" or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    program = ctypes.create_string_buffer(_filter())
    try:
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(program))
        )
    except OSError:
        return False
    return True


def _filter() -> bytes:
    """Return a program that drops TCP segments with SYN and without ACK. Classic BPF, linux/filter.h."""
    load_byte, bits_and, jump_if_equal, verdict = 0x30, 0x54, 0x15, 0x06
    instructions = (
        (load_byte, 0, 0, _FLAGS_OFFSET),
        (bits_and, 0, 0, _SYN | _ACK),
        (jump_if_equal, 0, 1, _SYN),
        (verdict, 0, 0, 0),
        (verdict, 0, 0, 0xFFFF_FFFF),
    )
    return b"".join(struct.pack("HBBI", *each) for each in instructions)
