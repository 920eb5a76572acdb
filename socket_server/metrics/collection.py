"""Collects the metrics of this worker and of all others of this gunicorn."""

import time

from socket_server import log
from socket_server.metrics.shared import SharedMetrics
from socket_server.metrics.snapshot import Snapshot, merged
from socket_server.metrics.worker import Metrics

_log = log.logger("Server")

PUBLISH_EVERY_S = 1.0
# The interval while no scrapes arrive. The counts of this time are lost if the worker is killed.
PUBLISH_UNWANTED_EVERY_S = 10.0


class Collection:
    """The metrics of this server. Alone until it is attached to the memory that workers share."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._shared: SharedMetrics | None = None
        self._worker = 0
        self._published_at = float("-inf")
        self._too_large = False

    def attach(self, shared: SharedMetrics, worker: int) -> None:
        """Join the other workers. worker: this worker's number in gunicorn's count."""
        self._shared, self._worker = shared, worker

    def collect(self) -> Snapshot:
        """Return the metrics of all workers; those of others are at most PUBLISH_EVERY_S old, once scraping has begun."""
        own = self.metrics.snapshot()
        if self._shared is None:
            return own
        self._shared.want()
        self._publish(own)
        return merged(self._shared.snapshots())

    def publish_if_due(self) -> None:
        """Let the other workers see this one's metrics; to be called several times in PUBLISH_EVERY_S."""
        if self._shared is None:
            return
        every_s = PUBLISH_EVERY_S if self._shared.wanted else PUBLISH_UNWANTED_EVERY_S
        if time.monotonic() - self._published_at >= every_s:
            self._publish(self.metrics.snapshot())

    def publish(self) -> None:
        """Let the other workers see this one's metrics now, before it ends."""
        if self._shared is not None:
            self._publish(self.metrics.snapshot())

    def _publish(self, snapshot: Snapshot) -> None:
        assert self._shared is not None
        self._published_at = time.monotonic()
        if not self._shared.publish(self._worker, snapshot) and not self._too_large:
            self._too_large = True
            _log.error("the metrics of this worker are too large to be shared with other workers")
