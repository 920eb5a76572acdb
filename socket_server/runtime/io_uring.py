"""io_uring's system calls and the memory that they share with the process: set-up, submission, completion.

A library would be more code than these two system calls. Source: io_uring(7), io_uring_setup(2), io_uring_enter(2); names
and layouts from the kernel's include/uapi/linux/io_uring.h.
"""

import ctypes
import errno
import mmap
import os
import platform
import socket
import sys
from array import array
from typing import Any

ENTRIES = 256  # of the submission queue; a power of two, as the kernel requires
COUNTER_MASK = 0xFFFF_FFFF  # heads and tails of the queues are 32-bit counters that wrap around

_SETUP, _ENTER = 425, 426  # system call numbers on these architectures
_ARCHITECTURES = ("x86_64", "aarch64")
_OFF_RINGS, _OFF_SQES = 0, 0x1000_0000
_FEAT_SINGLE_MMAP = 1
_ENTER_GETEVENTS = 1
_OP_SEND = 26
_SQE_BYTES, _CQE_BYTES = 64, 16


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


class IoUring:
    """The queues of one io_uring, as columns of memory shared with the kernel.

    Every submission is a send with MSG_DONTWAIT and MSG_NOSIGNAL; entry `n` of the table has `n` as its user_data.
    """

    # The table of submissions.
    fds: memoryview
    addresses: memoryview
    lengths: memoryview
    # The submission queue: which entry of the table comes next.
    order: memoryview
    # The completions: which entry they belong to, and its result.
    positions: memoryview
    results: memoryview
    completion_entries: int

    _counters: memoryview  # heads and tails

    def __init__(self) -> None:
        """Raises OSError if the kernel has no io_uring (before Linux 5.6) or forbids it (containers, sysctl)."""
        if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES or sys.maxsize < 2**32:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        self._syscall: Any = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.argtypes = (ctypes.c_long,) * 7
        self._syscall.restype = ctypes.c_long
        params = _Params()
        self._fd: int = self._syscall(_SETUP, ENTRIES, ctypes.addressof(params), 0, 0, 0, 0)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            self._map(params)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._fd)

    def submit(self, sent: int, count: int) -> int:
        """Submit `count` entries of the queue and wait until all are completed.

        sent: the number of submissions before, modulo 2**32. Returns that number afterwards: less than sent + count if
        the kernel did not accept all.
        """
        self._counters[self._sq_tail] = (sent + count) & COUNTER_MASK
        submitted: int = max(0, self._syscall(_ENTER, self._fd, count, count, _ENTER_GETEVENTS, 0, 0))
        sent = (sent + submitted) & COUNTER_MASK
        self._counters[self._sq_tail] = sent  # withdraws what was not accepted
        while left := (sent - self._counters[self._cq_tail]) & COUNTER_MASK:  # a signal interrupted the system call
            self._syscall(_ENTER, self._fd, 0, left, _ENTER_GETEVENTS, 0, 0)
        return sent

    def release_completions(self, up_to: int) -> None:
        """Tell the kernel that the completions up to this count have been read."""
        self._counters[self._cq_head] = up_to

    def _map(self, params: _Params) -> None:
        """Map the shared memory and write the fields that are the same for every submission."""
        if not params.features & _FEAT_SINGLE_MMAP:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        cqes_end = params.cq.cqes + _CQE_BYTES * params.cq_entries
        rings = self._mapped(max(params.sq.array + 4 * ENTRIES, cqes_end), _OFF_RINGS)
        self._counters = rings.cast("I")
        self._sq_tail, self._cq_head, self._cq_tail = params.sq.tail // 4, params.cq.head // 4, params.cq.tail // 4
        self.order = rings[params.sq.array : params.sq.array + 4 * ENTRIES].cast("I")
        completions = rings[params.cq.cqes : cqes_end]
        self.completion_entries = params.cq_entries
        self.positions = completions.cast("Q")[0::2]  # user_data
        self.results = completions.cast("i")[2::4]
        table = self._mapped(_SQE_BYTES * ENTRIES, _OFF_SQES)
        table[0::_SQE_BYTES] = bytes([_OP_SEND]) * ENTRIES
        table.cast("I")[7::16] = array("I", [socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL]) * ENTRIES
        table.cast("Q")[4::8] = array("Q", range(ENTRIES))  # user_data
        self.fds, self.lengths, self.addresses = table.cast("i")[1::16], table.cast("I")[6::16], table.cast("Q")[2::8]

    def _mapped(self, size: int, offset: int) -> memoryview:
        return memoryview(mmap.mmap(self._fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=offset))
