"""Frames to many sockets in one system call: io_uring, where the kernel has it and allows it.

The writes lie in memory shared with the kernel, and one call hands them over. The kernel does each at once or not at all
(MSG_DONTWAIT), so nothing is under way when it returns, and a file descriptor means afterwards what it meant before.
For its two system calls a library would be more code than this. Source: io_uring(7), io_uring_setup(2), io_uring_enter(2);
names and layouts from the kernel's include/uapi/linux/io_uring.h.
"""

import ctypes
import errno
import mmap
import os
import platform
import socket
import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

SIZE = 256  # sockets at once; a power of two, as the kernel wants

_SETUP, _ENTER = 425, 426  # the numbers of the system calls on these architectures
_ARCHITECTURES = ("x86_64", "aarch64")
_OFF_RINGS, _OFF_SQES = 0, 0x1000_0000
_FEAT_SINGLE_MMAP = 1
_ENTER_GETEVENTS = 1
_OP_SEND = 26
_SQE_BYTES, _CQE_BYTES = 64, 16
_COUNTER = 0xFFFF_FFFF  # heads and tails count on for ever, in 32 bits


class _SubmissionOffsets(ctypes.Structure):
    """struct io_sqring_offsets."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("head", "tail", "mask", "entries", "flags", "dropped", "array", "reserved")),
        ("user_addr", ctypes.c_uint64),
    )


class _CompletionOffsets(ctypes.Structure):
    """struct io_cqring_offsets."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("head", "tail", "mask", "entries", "overflow", "cqes", "flags", "reserved")),
        ("user_addr", ctypes.c_uint64),
    )


class _Params(ctypes.Structure):
    """struct io_uring_params."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("sq_entries", "cq_entries", "flags", "cpu", "idle", "features", "wq_fd")),
        ("reserved", ctypes.c_uint32 * 3),
        ("sq", _SubmissionOffsets),
        ("cq", _CompletionOffsets),
    )


class Ring:
    """An io_uring of one thread, which alone may use it; its greenlets may."""

    # Shared with the kernel: the writes and the completions column by column, and the heads and tails.
    _fds: memoryview
    _addresses: memoryview
    _lengths: memoryview
    _order: memoryview  # the queue: which write of the table comes next
    _positions: memoryview
    _results: memoryview
    _counters: memoryview

    _sent: int  # so many in all

    def __init__(self) -> None:
        """Raises OSError where the kernel has no io_uring (before Linux 5.6) or does not allow it (containers, sysctl)."""
        if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES or sys.maxsize < 2**32:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        self._sent = 0
        self._syscall: Any = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.argtypes = (ctypes.c_long,) * 7
        self._syscall.restype = ctypes.c_long
        params = _Params()
        self._fd: int = self._syscall(_SETUP, SIZE, ctypes.addressof(params), 0, 0, 0, 0)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            self._map(params)
            self._try()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give it back to the kernel."""
        os.close(self._fd)

    def send(self, frames: Sequence[bytes], fds: Sequence[int]) -> dict[int, int]:
        """Write to each of at most SIZE sockets its frame, without waiting.

        Return those that have not taken all of it: position in fds -> bytes taken, or a negative errno; -EAGAIN where the
        socket's buffer is full.
        """
        if not fds:
            return {}
        count = len(fds)
        # Where all get the same, it is read where it lies. To ask where each of many lies takes longer than to copy them
        # into one, in which their places are known. It must live until the kernel has read it.
        if frames.count(frames[0]) == count:
            memory = frames[0]
            sizes = [len(memory)] * count
            places = array("Q", [_address(memory)]) * count
        else:
            memory = b"".join(frames)
            sizes = list(map(len, frames))
            places = array("Q", list(accumulate(sizes[:-1], initial=_address(memory))))
        self._fds[:count] = array("i", fds)
        self._addresses[:count] = places
        self._lengths[:count] = array("I", sizes)
        sent, self._sent = self._sent, self._hand_over(count)
        submitted = (self._sent - sent) & _COUNTER

        results = self._completed(self._results, sent, submitted)
        positions = self._completed(self._positions, sent, submitted)
        self._counters[self._cq_head] = self._sent
        if results == sizes and positions == _IN_ORDER[:count]:
            return {}
        short = {at: taken for at, taken in zip(positions, results, strict=True) if taken != sizes[at]}
        # What the kernel had no memory for is as good as refused.
        return short | dict.fromkeys(range(submitted, count), -errno.EAGAIN)

    def _hand_over(self, count: int) -> int:
        """Let the kernel do the first writes of the table; return the new count of all that it has ever done."""
        # Its queue goes round: the next entries of it are to be the first of the table.
        start = self._sent % SIZE
        self._order[:] = _ROUND[SIZE - start : 2 * SIZE - start]
        self._counters[self._sq_tail] = (self._sent + count) & _COUNTER
        submitted: int = max(0, self._syscall(_ENTER, self._fd, count, count, _ENTER_GETEVENTS, 0, 0))
        sent = (self._sent + submitted) & _COUNTER
        self._counters[self._sq_tail] = sent  # takes back what was not accepted
        while left := (sent - self._counters[self._cq_tail]) & _COUNTER:  # a signal came between
            self._syscall(_ENTER, self._fd, 0, left, _ENTER_GETEVENTS, 0, 0)
        return sent

    def _completed(self, column: memoryview, start: int, count: int) -> list[int]:
        """Return one column of the completions from the start-th on; they go round too."""
        first = start % self._cq_entries
        values: list[int] = column[first : first + count].tolist()
        return values + column[: count - len(values)].tolist()

    def _map(self, params: _Params) -> None:
        """Map what is shared with the kernel; write what is the same for each write."""
        if not params.features & _FEAT_SINGLE_MMAP:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        cqes_end = params.cq.cqes + _CQE_BYTES * params.cq_entries
        rings = self._mapped(max(params.sq.array + 4 * SIZE, cqes_end), _OFF_RINGS)
        self._counters = rings.cast("I")
        self._sq_tail, self._cq_head, self._cq_tail = params.sq.tail // 4, params.cq.head // 4, params.cq.tail // 4
        self._order = rings[params.sq.array : params.sq.array + 4 * SIZE].cast("I")
        completions = rings[params.cq.cqes : cqes_end]
        self._cq_entries = params.cq_entries
        self._positions = completions.cast("Q")[0::2]  # user_data
        self._results = completions.cast("i")[2::4]
        table = self._mapped(_SQE_BYTES * SIZE, _OFF_SQES)
        table[0::_SQE_BYTES] = bytes([_OP_SEND]) * SIZE
        table.cast("I")[7::16] = array("I", [socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL]) * SIZE
        table.cast("Q")[4::8] = array("Q", range(SIZE))  # user_data: which one it is
        self._fds, self._lengths, self._addresses = table.cast("i")[1::16], table.cast("I")[6::16], table.cast("Q")[2::8]

    def _mapped(self, size: int, offset: int) -> memoryview:
        return memoryview(mmap.mmap(self._fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=offset))

    def _try(self) -> None:
        """Raise OSError where this kernel's io_uring cannot do it."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for error in self.send([b"?"], [ours.fileno()]).values():
                raise OSError(-error, os.strerror(-error))


def _address(memory: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(memory), ctypes.c_void_p).value or 0


_IN_ORDER = list(range(SIZE))
_ROUND = array("I", _IN_ORDER * 2)
