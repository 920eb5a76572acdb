"""Write frames to many sockets in one system call, if the kernel has io_uring and allows it.

The kernel does each write at once or not at all (MSG_DONTWAIT). When send() returns, no write is pending and no file
descriptor is in use by the kernel.
"""

import ctypes
import errno
import os
import socket
from array import array
from collections.abc import Sequence
from itertools import accumulate

from socket_server.runtime.io_uring import COUNTER_MASK, ENTRIES, IoUring

SIZE = ENTRIES  # sockets of one call


class Ring:
    """An io_uring for sending. Only the thread that made it may use it; its greenlets may."""

    def __init__(self) -> None:
        """Raises OSError if the kernel has no io_uring (before Linux 5.6) or forbids it (containers, sysctl)."""
        self._uring = IoUring()
        self._sent = 0  # submissions so far, modulo 2**32
        try:
            self._try()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._uring.close()

    def send(self, frames: Sequence[bytes], fds: Sequence[int]) -> dict[int, int]:
        """Write frames[n] to the socket fds[n], for at most SIZE sockets, without blocking.

        Returns the writes that were not complete: position -> bytes written, or a negative errno (-EAGAIN: the socket's
        buffer is full).
        """
        if not fds:
            return {}
        count, uring = len(fds), self._uring
        # One frame for all is read in place. Different frames are copied into one buffer: computing their addresses in
        # it from the sizes is faster than asking for the address of each. The buffer must live until the return.
        if frames.count(frames[0]) == count:
            memory = frames[0]
            sizes = [len(memory)] * count
            addresses = array("Q", [_address(memory)]) * count
        else:
            memory = b"".join(frames)
            sizes = list(map(len, frames))
            addresses = array("Q", list(accumulate(sizes[:-1], initial=_address(memory))))
        uring.fds[:count] = array("i", fds)
        uring.addresses[:count] = addresses
        uring.lengths[:count] = array("I", sizes)
        # The queue wraps around: its next entries shall be the first of the table.
        before, start = self._sent, self._sent % SIZE
        uring.order[:] = _TWICE_AROUND[SIZE - start : 2 * SIZE - start]
        self._sent = uring.submit(before, count)

        completed = (self._sent - before) & COUNTER_MASK
        results = self._completed(uring.results, before, completed)
        positions = self._completed(uring.positions, before, completed)
        uring.release_completions(self._sent)
        if results == sizes and positions == _IN_ORDER[:count]:
            return {}
        short = {at: written for at, written in zip(positions, results, strict=True) if written != sizes[at]}
        # The kernel accepts fewer submissions if it is out of memory.
        return short | dict.fromkeys(range(completed, count), -errno.EAGAIN)

    def _completed(self, column: memoryview, start: int, count: int) -> list[int]:
        """Return `count` values of a column of the completions, which wrap around, from number `start` on."""
        first = start % self._uring.completion_entries
        values: list[int] = column[first : first + count].tolist()
        return values + column[: count - len(values)].tolist()

    def _try(self) -> None:
        """Send one byte. Raises OSError if this kernel's io_uring cannot send."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for error in self.send([b"?"], [ours.fileno()]).values():
                raise OSError(-error, os.strerror(-error))


def _address(memory: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(memory), ctypes.c_void_p).value or 0


_IN_ORDER = list(range(SIZE))
_TWICE_AROUND = array("I", _IN_ORDER * 2)
