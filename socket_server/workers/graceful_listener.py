"""The door: a listening socket that closes for good, without turning away anybody who has come in.

When a listening socket goes, the kernel resets whoever stands in line at it, and whoever has just shaken hands on his side
and may have sent his post. Nobody could tell whether that was taken. So newcomers are kept out first: their SYN is dropped,
by a filter on the socket. Who is on the way in comes in and is let in, and then nobody is left to be reset. A newcomer's
system tries again after a second (RFC 6298 section 2), and is refused then, or welcome at the next server on this port.
Sources: socket(7), SO_ATTACH_FILTER; RFC 9293 section 3.1 for the flags.
"""

import ctypes
import os
import socket
import struct
import sys
from typing import Any

# So long a handshake may take from here on, there and back: longer than between a back end or a proxy and its server.
HANDSHAKE_S = 0.1

_SO_ATTACH_FILTER = 26
_FLAGS = 13  # where they are in a TCP header
_SYN, _ACK = 0x02, 0x10


def lend(arbiter: Any, worker: Any) -> None:
    """gunicorn's hook before it forks a worker: note whether its listening sockets are lent by whoever started gunicorn
    (systemd, `fd://`). They outlive it, and so would a filter."""
    worker.lent = bool(arbiter.systemd) or any(isinstance(address, int) for address in arbiter.cfg.address)


def held_by(pid: int, listener: Any) -> bool:
    """Whether a process has this socket open too. Where that cannot be seen, yes."""
    socket_itself = os.fstat(listener.fileno())
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                other = os.stat(f"/proc/{pid}/fd/{fd}")
            except FileNotFoundError:
                continue  # closed just now
            if (other.st_dev, other.st_ino) == (socket_itself.st_dev, socket_itself.st_ino):
                return True
    except OSError:
        return True
    return False


def keep_newcomers_out(listener: Any) -> bool:
    """Drop what would open a new connection to this listening socket, for as long as any process has it. Return False where
    that is not to be had."""
    if sys.platform != "linux" or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    program = ctypes.create_string_buffer(_program())
    try:
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(program))
        )
    except OSError:
        return False
    return True


def _program() -> bytes:
    """Return a filter that drops a TCP segment with SYN and without ACK: instructions of classic BPF, linux/filter.h."""
    load_byte, bits_and, jump_if_equal, verdict = 0x30, 0x54, 0x15, 0x06
    instructions = (
        (load_byte, 0, 0, _FLAGS),
        (bits_and, 0, 0, _SYN | _ACK),
        (jump_if_equal, 0, 1, _SYN),
        (verdict, 0, 0, 0),
        (verdict, 0, 0, 0xFFFF_FFFF),
    )
    return b"".join(struct.pack("HBBI", *each) for each in instructions)
