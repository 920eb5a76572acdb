"""One answer for all who ask at the same time.

What anyone may ask for, a key or not, then costs the one Redis of all nodes one call at a time from each, however many ask.
"""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from socket_server.errors import ClusterUnavailable

Answer = TypeVar("Answer")


class SingleFlight(Generic[Answer]):
    """Asks once for all who have come while it was asking before. For threads, or greenlets."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        """ask: may raise ClusterUnavailable."""
        self._ask = ask
        self._asking = threading.Lock()
        self._asked = float("-inf")  # when that was whose outcome is here
        self._outcome: Answer | ClusterUnavailable

    def __call__(self) -> Answer:
        """Return what was asked for after this call began. Raises ClusterUnavailable."""
        came = time.monotonic()
        with self._asking:
            if self._asked <= came:
                asked = time.monotonic()
                try:
                    self._outcome = self._ask()
                except ClusterUnavailable as error:
                    self._outcome = error
                self._asked = asked
            outcome = self._outcome
        if isinstance(outcome, ClusterUnavailable):
            raise ClusterUnavailable(str(outcome))
        return outcome
