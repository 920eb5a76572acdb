"""The metric families that this server exports: name, kind, labels, meaning (docs/metrics.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

PREFIX = "socket_server_"

# Upper bounds in seconds. Measured on one core: a small post takes 0.2 to 0.3 ms, a commit in SQLite 0.3 to 1 ms, a
# broadcast to 10,000 connections 15 ms, and one that is queued behind others up to about 100 ms.
LATENCY_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

# Event-loop lag: the time slice of a greenlet is 5 ms.
LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

# Network round trips of clients.
ROUND_TRIP_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# Broadcasts that share a commit.
BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Kind(Enum):
    """The type of a family, as Prometheus names it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(Enum):
    """How the values of several workers become one."""

    SUM = "sum"
    MINIMUM = "minimum"


@dataclass(frozen=True, slots=True)
class Family:
    """name: without the `_total` of counters. buckets: upper bounds of a histogram, inclusive, ascending."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: Sequence[float] = ()
    merge: Merge = Merge.SUM


def _counter(name: str, help_: str, *labels: str) -> Family:
    return Family(PREFIX + name, Kind.COUNTER, help_, labels)


def _gauge(name: str, help_: str, *labels: str) -> Family:
    return Family(PREFIX + name, Kind.GAUGE, help_, labels)


def _histogram(name: str, help_: str, buckets: Sequence[float], *labels: str) -> Family:
    return Family(PREFIX + name, Kind.HISTOGRAM, help_, labels, buckets)


CONNECTIONS = _gauge("connections", "Authenticated connections.", "transport")
USERS = _gauge("users", "Users with at least one connection, summed over workers.")
SEND_BUFFER_BYTES = _gauge("send_buffer_bytes", "Bytes that wait for clients to take them.")
DELIVERY_QUEUE_BYTES = _gauge("delivery_queue_bytes", "Bytes of notifications that are stored and not yet written.")

CONNECTS = _counter("connects", "Connections that authenticated.")
DISCONNECTS = _counter("disconnects", "Authenticated connections that ended.", "reason")
AUTHENTICATIONS = _counter("authentications", "Attempts to authenticate: `success` or the code of the refusal.", "result")

BROADCASTS = _counter("broadcasts", "Broadcasts that were accepted; each of a batch counts.")
NOTIFICATIONS = _counter("notifications", "Notifications that were stored.")
DELIVERIES = _counter("deliveries", "Notifications written to a connection.")
SENT_BYTES = _counter("sent_bytes", "Bytes of notifications written to connections.")

SLOW_CONSUMERS = _counter("slow_consumers", "Connections closed because their send buffer was full.")
LIMITS_HIT = _counter("limits_hit", "Requests and connections that a limit refused.", "limit")
STORAGE_PROCESS_RESTARTS = _counter("storage_process_restarts", "Restarts of the process that owns the SQLite file.")

DELIVERY_SECONDS = _histogram("delivery_seconds", "From the acceptance of a broadcast to its last write.", LATENCY_S)
STORE_SECONDS = _histogram("store_seconds", "Storing one group of broadcasts in the inbox.", LATENCY_S)
COMMIT_BROADCASTS = _histogram("commit_broadcasts", "Broadcasts stored together in one group.", BATCH)
EVENT_LOOP_LAG_SECONDS = _histogram("event_loop_lag_seconds", "How much later than due a timer ran.", LAG_S)
PING_ROUND_TRIP_SECONDS = _histogram("ping_round_trip_seconds", "From a ping to the client's pong.", ROUND_TRIP_S)

RECOVERIES = _counter("recoveries", "Recoveries with an offset: `complete`, or `incomplete` by retention.", "result")
REPLAYED_NOTIFICATIONS = _counter("replayed_notifications", "Notifications replayed to connections that recovered.")

HTTP_REQUESTS = _counter("http_requests", "HTTP requests that were answered.", "route", "method", "status")
HTTP_REQUEST_SECONDS = _histogram("http_request_seconds", "Answering an HTTP request.", LATENCY_S, "route")

REDIS_ROUND_TRIP_SECONDS = _histogram("redis_round_trip_seconds", "Calls of Redis.", LATENCY_S)
FEED_LAG_SECONDS = _histogram("feed_lag_seconds", "From storing on another node to delivery on this one.", LATENCY_S)

BUILD_INFO = _gauge("build_info", "The version of this server; the value is 1.", "version")
WORKERS = _gauge("workers", "Worker processes that these figures cover.")

# Named as every Prometheus client names them; summed over workers.
PROCESS_CPU_SECONDS = Family("process_cpu_seconds", Kind.COUNTER, "Processor time that the workers have used.")
PROCESS_RESIDENT_MEMORY_BYTES = Family("process_resident_memory_bytes", Kind.GAUGE, "Resident memory of the workers.")
PROCESS_OPEN_FDS = Family("process_open_fds", Kind.GAUGE, "Open file descriptors of the workers.")
PROCESS_MAX_FDS = Family("process_max_fds", Kind.GAUGE, "Limit of open file descriptors, summed over the workers.")
PROCESS_START_TIME_SECONDS = Family(
    "process_start_time_seconds", Kind.GAUGE, "When the oldest worker started, Unix time.", merge=Merge.MINIMUM
)

FAMILIES = tuple(value for value in list(globals().values()) if isinstance(value, Family))
