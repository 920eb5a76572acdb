"""The metrics of one worker: what the parts of the server count in, and the snapshot of it all."""

import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping

from socket_server import __version__
from socket_server.metrics import families
from socket_server.metrics.families import Family, Kind
from socket_server.metrics.snapshot import Buckets, Labels, Sample, Snapshot
from socket_server.metrics.values import Counter, Histogram, LabeledCounter

# Values of the label `reason` of disconnects; every other reason is `other`.
DISCONNECT_REASONS = (
    *("client_disconnect", "transport_close", "ping_timeout", "slow_consumer", "server_shutdown", "replaced"),
    *("signed_out", "too_many_connections", "expired_token", "protocol_error", "server_error"),
)
AUTHENTICATION_RESULTS = (
    *("success", "missing_credentials", "invalid_format", "invalid_token", "expired_token", "user_mismatch"),
    *("too_many_connections", "auth_timeout", "signed_out", "revoked", "internal", "unavailable"),
)
LIMITS = (
    *("max_connections", "unauthenticated_connections", "max_connections_per_ip", "max_connections_per_user"),
    *("max_auth_failures_per_minute", "max_events_per_second", "max_message_bytes", "max_body_bytes"),
    *("max_users_per_broadcast", "send_backlog_bytes", "descriptors"),
)
HTTP_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

GaugeReader = Callable[[], Mapping[Labels, float]]


class Metrics:
    """Values by name. Adding to one is an attribute access and an addition."""

    def __init__(self) -> None:
        self.connects = Counter()
        self.disconnects = LabeledCounter(DISCONNECT_REASONS)
        self.authentications = LabeledCounter(AUTHENTICATION_RESULTS)
        self.broadcasts = Counter()
        self.notifications = Counter()
        self.deliveries = Counter()
        self.sent_bytes = Counter()
        self.slow_consumers = Counter()
        self.limits_hit = LabeledCounter(LIMITS)
        self.storage_process_restarts = Counter()
        self.delivery_seconds = _histogram(families.DELIVERY_SECONDS)
        self.store_seconds = _histogram(families.STORE_SECONDS)
        self.commit_broadcasts = _histogram(families.COMMIT_BROADCASTS)
        self.event_loop_lag_seconds = _histogram(families.EVENT_LOOP_LAG_SECONDS)
        self.ping_round_trip_seconds = _histogram(families.PING_ROUND_TRIP_SECONDS)
        self.recoveries = LabeledCounter(("complete", "incomplete"))
        self.replayed_notifications = Counter()
        self.redis_round_trip_seconds: Histogram | None = None  # None: without REDIS_URL
        self.feed_lag_seconds: Histogram | None = None
        self._http_requests: dict[tuple[str, str, str], int] = {}
        self._http_request_seconds: dict[str, Histogram] = {}
        self._gauges: dict[str, GaugeReader] = {}

    def with_redis(self) -> None:
        """Add the values of a server that uses Redis."""
        self.redis_round_trip_seconds = _histogram(families.REDIS_ROUND_TRIP_SECONDS)
        self.feed_lag_seconds = _histogram(families.FEED_LAG_SECONDS)

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an HTTP request. route: the template of its path, or `unmatched`: never the path itself."""
        key = (route, method if method in HTTP_METHODS else "other", str(status))
        self._http_requests[key] = self._http_requests.get(key, 0) + 1
        histogram = self._http_request_seconds.get(route)
        if histogram is None:
            histogram = self._http_request_seconds[route] = _histogram(families.HTTP_REQUEST_SECONDS)
        histogram.observe(seconds)

    def gauge(self, family: Family, read: GaugeReader) -> None:
        """Have a gauge read at each snapshot. read: returns its values by their labels."""
        self._gauges[family.name] = read

    def snapshot(self) -> Snapshot:
        """Return all values."""
        samples = [*self._counters(), *self._histograms()]
        for name, read in self._gauges.items():
            samples += [Sample(name, labels, value) for labels, value in read().items()]
        samples += _process()
        return samples

    def _counters(self) -> Iterable[Sample]:
        for family, counter in (
            (families.CONNECTS, self.connects),
            (families.BROADCASTS, self.broadcasts),
            (families.NOTIFICATIONS, self.notifications),
            (families.DELIVERIES, self.deliveries),
            (families.SENT_BYTES, self.sent_bytes),
            (families.SLOW_CONSUMERS, self.slow_consumers),
            (families.STORAGE_PROCESS_RESTARTS, self.storage_process_restarts),
            (families.REPLAYED_NOTIFICATIONS, self.replayed_notifications),
        ):
            yield Sample(family.name, (), counter.value)
        for family, labeled in (
            (families.DISCONNECTS, self.disconnects),
            (families.AUTHENTICATIONS, self.authentications),
            (families.LIMITS_HIT, self.limits_hit),
            (families.RECOVERIES, self.recoveries),
        ):
            for label, value in labeled.values.items():
                yield Sample(family.name, (label,), value)
        for key, count in self._http_requests.items():
            yield Sample(families.HTTP_REQUESTS.name, key, count)

    def _histograms(self) -> Iterable[Sample]:
        for family, histogram in (
            (families.DELIVERY_SECONDS, self.delivery_seconds),
            (families.STORE_SECONDS, self.store_seconds),
            (families.COMMIT_BROADCASTS, self.commit_broadcasts),
            (families.EVENT_LOOP_LAG_SECONDS, self.event_loop_lag_seconds),
            (families.PING_ROUND_TRIP_SECONDS, self.ping_round_trip_seconds),
            (families.REDIS_ROUND_TRIP_SECONDS, self.redis_round_trip_seconds),
            (families.FEED_LAG_SECONDS, self.feed_lag_seconds),
        ):
            if histogram is not None:
                yield Sample(family.name, (), Buckets(tuple(histogram.counts), histogram.sum))
        for route, histogram in self._http_request_seconds.items():
            yield Sample(families.HTTP_REQUEST_SECONDS.name, (route,), Buckets(tuple(histogram.counts), histogram.sum))


def _histogram(family: Family) -> Histogram:
    assert family.kind is Kind.HISTOGRAM
    return Histogram(family.buckets)


def _process() -> list[Sample]:
    """Return the figures of this process. Linux only has all of them."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    samples = [
        Sample(families.BUILD_INFO.name, (__version__,), 1.0),
        Sample(families.WORKERS.name, (), 1.0),
        Sample(families.PROCESS_CPU_SECONDS.name, (), usage.ru_utime + usage.ru_stime),
        Sample(families.PROCESS_MAX_FDS.name, (), float(resource.getrlimit(resource.RLIMIT_NOFILE)[0])),
        Sample(families.PROCESS_START_TIME_SECONDS.name, (), _STARTED_AT),
    ]
    try:
        with open("/proc/self/statm", "rb") as statm:
            pages = int(statm.read().split()[1])
        samples.append(Sample(families.PROCESS_RESIDENT_MEMORY_BYTES.name, (), float(pages * resource.getpagesize())))
        # The number of open descriptors since Linux 6.2; 0 before, and then they are counted.
        open_fds = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
        samples.append(Sample(families.PROCESS_OPEN_FDS.name, (), float(open_fds)))
    except OSError:
        pass
    return samples


_STARTED_AT = time.time()
