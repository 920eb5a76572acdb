"""The bytes that wait for one connection because the kernel does not take them now."""

import errno
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
TRY_AGAIN = (errno.EAGAIN, errno.EINTR)

_WRITE = 2  # libev's EV_WRITE, as gevent's loop.io() takes it


class SendBuffer:
    """Frames in order. Exists only while there are some, with a watcher that wakes when the socket can be written."""

    __slots__ = ("_frames", "_watcher", "size")

    def __init__(self, fileno: int, on_writable: Callable[[], object]) -> None:
        self._frames: deque[bytes] = deque()
        self.size = 0  # bytes
        self._watcher = gevent.get_hub().loop.io(fileno, _WRITE)
        self._watcher.start(on_writable)

    def append(self, frame: bytes) -> None:
        self._frames.append(frame)
        self.size += len(frame)

    @property
    def single(self) -> bool:
        """Whether it holds one frame only."""
        return len(self._frames) == 1

    def flush(self, sock: Any) -> bool:
        """Write what the kernel takes; return whether that was all. Raises OSError if the connection has ended."""
        frames = self._frames
        try:
            while frames:
                sent = sock.send(frames[0])
                self.size -= sent
                if sent < len(frames[0]):
                    frames[0] = frames[0][sent:]
                    return False
                frames.popleft()
        except WOULD_BLOCK:
            return False
        return True

    def close(self) -> None:
        """Stop the watcher. Must be called before the socket is closed, or it could watch the descriptor's next owner."""
        self._watcher.stop()
        self._watcher.close()
