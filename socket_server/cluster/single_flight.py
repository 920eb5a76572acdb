"""Single flight: concurrent callers share one call.

Anybody may request /stats and /health, without an API key. However many do, each node has one call to Redis at a time.
"""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from socket_server.errors import ClusterUnavailable

Answer = TypeVar("Answer")


class SingleFlight(Generic[Answer]):
    """Calls once for all callers that arrived during the call before. Thread-safe."""

    def __init__(self, call: Callable[[], Answer]) -> None:
        """call: may raise ClusterUnavailable."""
        self._call = call
        self._lock = threading.Lock()
        self._called_at = float("-inf")  # of the outcome
        self._outcome: Answer | ClusterUnavailable

    def __call__(self) -> Answer:
        """Return the answer of a call that began after this one did. Raises ClusterUnavailable."""
        arrived_at = time.monotonic()
        with self._lock:
            if self._called_at <= arrived_at:
                called_at = time.monotonic()
                try:
                    self._outcome = self._call()
                except ClusterUnavailable as error:
                    self._outcome = error
                self._called_at = called_at
            outcome = self._outcome
        if isinstance(outcome, ClusterUnavailable):
            raise ClusterUnavailable(str(outcome))
        return outcome
