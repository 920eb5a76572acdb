"""Offsets: a place in the order of all notifications; time-ordered 64-bit numbers, strictly increasing."""

import threading
import time
from collections.abc import Callable


class Offsets:
    """Hands out microseconds since 1970, bumped wherever the clock has not moved on, or has moved back."""

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._head = clock_ns() // 1_000

    @property
    def head(self) -> str:
        """The newest offset; before the first notification, where this process began."""
        return str(self._head)

    def next(self) -> str:
        """Return a new offset, a decimal string greater than every one before."""
        with self._lock:
            self._head = max(self._clock_ns() // 1_000, self._head + 1)
            return str(self._head)
