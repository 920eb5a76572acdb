"""Log lines that clients can cause at will: at most a few a second, and then one line with the number left out."""

import threading
import time
from collections.abc import Callable

LINES_PER_SECOND = 10


class LimitedLog:
    """Passes on up to LINES_PER_SECOND lines in each second. Thread-safe."""

    def __init__(self, write: Callable[..., object], what: str) -> None:
        """write: a method of a logger, such as `log.warning`. what: names the lines in the line that counts the rest."""
        self._write = write
        self._what = what
        self._lock = threading.Lock()
        self._second_ends = 0.0
        self._written = 0
        self._left_out = 0

    def __call__(self, message: str, *args: object) -> None:
        """Write a line, or count it as left out."""
        now = time.monotonic()
        with self._lock:
            if now >= self._second_ends and not self._left_out:
                self._second_ends, self._written = now + 1.0, 0
            if self._written >= LINES_PER_SECOND:
                self._left_out += 1
                if self._left_out == 1:
                    timer = threading.Timer(max(0.0, self._second_ends - now), self._tell)
                    timer.daemon = True
                    timer.start()
                return
            self._written += 1
        self._write(message, *args)

    def _tell(self) -> None:
        with self._lock:
            left_out, self._left_out, self._written = self._left_out, 0, 0
            self._second_ends = time.monotonic() + 1.0
        self._write("%s: left_out=%d", self._what, left_out)
