"""The store in Redis (6.2 or later, or Valkey): any number of server processes share it.

Every change is one script, which Redis runs as one step: it gives offsets, settles idempotency keys, stores, and writes the
log that all nodes read, in the same order. Durable as far as Redis is: `appendonly yes` keeps what was answered.
What lies where: redis_scripts.py.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from socket_server import log
from socket_server.errors import ConfigError
from socket_server.inbox.inbox import (
    IDEMPOTENCY_S,
    MICROSECONDS,
    Appended,
    Clock,
    DeliveryCount,
    Entry,
    InboxUnavailable,
    Page,
    Record,
    Repeat,
    Retention,
    Stored,
)
from socket_server.inbox.redis.dedicated_connection import DedicatedConnection
from socket_server.inbox.redis.scripts import AMEND, APPEND, FORGET, PREFIX, SINCE, claim_key, key_bytes, packed, records

_log = log.logger("Server")

# How far back the log goes: a node that was away for longer has its clients recover from their inboxes.
LOG_S = 120
LOG_BYTES = 64_000_000

CONNECT_TIMEOUT_S = 3.0
TIMEOUT_S = 5.0  # for an answer
_HEALTH_CHECK_S = 30  # a connection that has been idle for so long is tried before it is trusted
_READERS = 8  # calls at once; each takes a connection
_WRITERS = 4  # apart from those, so that no number of recoveries holds up a broadcast

# Entries of the log that one append hands out: what a node that was away has missed must hold up neither Redis nor it.
_OTHERS = 50

_OLDEST_VERSION = (6, 2)  # LPOP with a count, XADD with MINID
# Offsets are doubles in Lua: exact up to here, which is the year 2255.
_MAX_OFFSET = 2**53 - 1


class RedisInbox:
    """An Inbox in Redis. For threads, or greenlets where the sockets are gevent's."""

    def __init__(self, url: str, retention: Retention, clock: Clock | None = None, counted: str = "") -> None:
        """url: redis://, rediss:// or unix:// as redis-py reads them, or
        redis+sentinel://[:password@]host1:26379,host2:26379/<service>[/<db>]; clock: instead of Redis's own, for tests;
        counted: what begins the keys of the hashes, one a user, that hold the connections of all nodes, for Appended.reach.

        Connects to nothing yet. Raises ConfigError for a URL that cannot be read.
        """
        self._retention = retention
        self._ttl = round(retention.ttl_s * MICROSECONDS)
        self._clock = clock
        self._counted = counted
        self._client, self._where = connect(url, _READERS + _WRITERS)
        self._password = self._client.connection_pool.connection_kwargs.get("password") or ""
        self._line = DedicatedConnection(self._client)  # of the appends
        self._append = self._client.register_script(APPEND)
        self._since = self._client.register_script(SINCE)
        self._forget = self._client.register_script(FORGET)
        self._amend = self._client.register_script(AMEND)
        self._reading = threading.BoundedSemaphore(_READERS)
        self._writing = threading.BoundedSemaphore(_WRITERS)
        self._lock = threading.Lock()
        self._head = 0  # the newest offset that this process has heard of

    @property
    def place(self) -> str:
        return self._where

    def open(self) -> int:
        with self._asking(self._writing):
            self._look_around()
            return self._try()

    def append(self, entries: Sequence[Entry], after: int | None = None) -> Appended:
        if not entries and after is None:
            return Appended(())
        if after is not None:
            self._heard(after)
        with self._asking(self._writing):
            arguments = self._append_arguments(entries, after)
            head, before, more, others, *outcomes = self._line.run(self._append, *arguments)
            self._heard(head)
        missed = records(others, after or 0)
        return Appended(
            tuple([_outcome(each) for each in outcomes]),
            tuple(missed),
            after is None or _joined(after, missed, int(before)),
            tuple([_reach(each) for each in outcomes]) if self._counted else (),
            bool(more),
        )

    def amend(self, key: str, answer: bytes) -> None:
        with self._asking(self._writing):
            self._amend(keys=[claim_key(key)], args=[answer])

    def since(self, user_id: str, after: int, until: int | None, limit: int, max_bytes: int) -> Page:
        start = min(max(after, 0), _MAX_OFFSET)
        end = _MAX_OFFSET if until is None else min(until, _MAX_OFFSET)
        with self._asking(self._reading):
            head, anew, whole_after, total, missing, found = self._since(
                args=[*self._arguments(), key_bytes(user_id), start, end, limit, max_bytes]
            )
            if not anew:
                self._heard(head)
            complete = not missing and int(whole_after) <= after <= int(head)
        offsets, bodies = found[::2], found[1::2]
        page = tuple(Stored(int(offset), body) for offset, body in zip(offsets, bodies, strict=True))
        return Page(page, total, complete)

    def forget(self, user_id: str) -> int:
        with self._asking(self._writing):
            head, count = self._forget(args=[*self._arguments(), key_bytes(user_id)])
            self._heard(head)
        return int(count)

    def check(self) -> None:
        with self._asking(self._writing):
            self._try()

    def close(self) -> None:
        self._client.close()
        self._client.connection_pool.disconnect()

    # What scripts take and give

    def _arguments(self) -> list[str | bytes | int]:
        return [PREFIX, "" if self._clock is None else self._clock(), self._head, self._ttl]

    def _append_arguments(self, entries: Sequence[Entry], after: int | None) -> list[str | bytes | int]:
        arguments = self._arguments()
        arguments += [self._retention.max_per_user, IDEMPOTENCY_S * MICROSECONDS, LOG_BYTES, LOG_S * MICROSECONDS]
        arguments += ["" if after is None else after, self._counted, _OTHERS]
        if entries:
            arguments += packed(entries, self._retention.ttl_s)
        return arguments

    def _try(self) -> int:
        """Append nothing, which writes all the same; return the head."""
        head, *_ = self._append(args=self._append_arguments((), None))
        self._heard(head)
        return int(head)

    def _heard(self, head: bytes | int) -> None:
        with self._lock:
            self._head = max(self._head, int(head))

    # What can go wrong

    @contextmanager
    def _asking(self, slots: threading.BoundedSemaphore) -> Iterator[None]:
        """Take one of the calls at once. Raises InboxUnavailable for whatever Redis, or the way to it, says meanwhile."""
        if not slots.acquire(timeout=TIMEOUT_S):
            raise InboxUnavailable(f"the inbox at {self._where} does not keep up: look at its load (SLOWLOG, CPU)")
        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise InboxUnavailable(f"the inbox at {self._where} {explain(error, self._password)}") from None
        finally:
            slots.release()

    def _look_around(self) -> None:
        """Refuse a Redis that is too old, and warn of one that may throw away what it is to keep."""
        try:
            facts: Mapping[str, Any] = self._client.info()
        except redis.ResponseError:
            return  # this user may not ask
        version = str(facts.get("redis_version", ""))
        numbers = tuple(int(each) for each in version.split(".")[:2] if each.isdigit())
        if len(numbers) == 2 and numbers < _OLDEST_VERSION:
            raise InboxUnavailable(f"the inbox at {self._where} is Redis {version}: use 6.2 or later")
        policy = facts.get("maxmemory_policy", "noeviction")
        if facts.get("maxmemory") and policy != "noeviction":
            _log.warning(
                "the inbox at %s may throw away what users missed: set its maxmemory-policy to noeviction (it is %s)",
                self._where,
                policy,
            )


def _joined(after: int, records: Sequence[Record], before: int) -> bool:
    """Say whether records are all that lies between an offset and the one before the next entry."""
    last = after
    for each in records:
        if each.before > last:
            return False
        last = each.offset
    return before <= last


def connect(url: str, connections: int) -> tuple["redis.Redis", str]:
    """Return a client of at most so many connections, none made yet, and a name that may be shown. Raises ConfigError.

    It tries nothing twice by itself: an append whose answer was lost may have been done.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": _HEALTH_CHECK_S,
        "retry": Retry(NoBackoff(), 0),
        # RESP3 would give nothing here, and redis-py makes its connections slower then: it asks for push messages too.
        "protocol": 2,
        "max_connections": connections,
    }
    try:
        if url.startswith("redis+sentinel://"):
            return _connect_by_sentinel(url, options)
        if url.startswith("unix://"):
            del options["socket_keepalive"]
        client = redis.Redis.from_url(url, **options)
    except (ValueError, TypeError, redis.RedisError):
        # What the library says may quote the password.
        raise ConfigError(
            [
                "the Redis URL cannot be read: use redis://:password@host:6379/0, rediss://…, unix:///path/to/socket or "
                "redis+sentinel://:password@host1:26379,host2:26379/service/0, with the password percent-encoded"
            ]
        ) from None
    facts = client.connection_pool.connection_kwargs
    place = facts["path"] if "path" in facts else f"{facts.get('host', 'localhost')}:{facts.get('port', 6379)}"
    return client, f"{url.partition('://')[0]}://{place}"


def _connect_by_sentinel(url: str, options: dict[str, Any]) -> tuple["redis.Redis", str]:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = (unquote(each) for each in credentials.partition(":"))
    service, _, db = parts.path.strip("/").partition("/")
    if not service or not hosts or parts.query or parts.fragment:
        raise ValueError("not a Sentinel URL")
    addresses = []
    for host in hosts.split(","):
        address = urlsplit(f"//{host}")
        addresses.append((address.hostname or "localhost", address.port or 26_379))
    # The Sentinels themselves are asked without a password, as they are usually run.
    make: Any = Sentinel  # which carries no types
    client: redis.Redis = make(addresses, sentinel_kwargs=options).master_for(
        unquote(service),
        redis_class=redis.Redis,
        db=int(db or 0),
        username=username or None,
        password=password or None,
        **options,
    )
    return client, f"redis+sentinel://{hosts}/{service}"


# Redis's error codes and what to do. A script's error has its code within the text in Redis 6, and in front in Redis 7;
# redis-py makes classes of some, and takes the code away.
_ADVICE: Sequence[tuple[str, type[Exception] | None, str]] = (
    ("OOM ", redis.exceptions.OutOfMemoryError, "is full: raise its maxmemory, or lower INBOX_TTL or INBOX_MAX_PER_USER"),
    ("READONLY ", redis.exceptions.ReadOnlyError, "is a read-only replica: name the primary, or use redis+sentinel://"),
    ("LOADING ", redis.exceptions.BusyLoadingError, "is still loading its data: wait until it has"),
    ("MISCONF ", None, "cannot save to its disk (MISCONF) and takes no writes: make room there; its log says more"),
    ("NOREPLICAS ", None, "has fewer good replicas than min-replicas-to-write: bring them back, or lower that"),
    ("MASTERDOWN ", redis.exceptions.MasterDownError, "is a replica that has lost its primary: bring that back"),
    ("MOVED ", redis.exceptions.MovedError, "is part of a Redis Cluster: use a Redis that is none"),
    ("CLUSTERDOWN ", redis.exceptions.ClusterDownError, "is part of a Redis Cluster: use a Redis that is none"),
    ("BUSY ", None, "is busy with another program's script: end that (SCRIPT KILL)"),
    ("NOAUTH ", redis.AuthenticationError, "wants another user or password: put the right ones into its URL"),
    ("WRONGPASS ", None, "wants another user or password: put the right ones into its URL"),
    ("NOPERM ", redis.exceptions.NoPermissionError, f"does not let this user do what it must: allow ~{PREFIX}* +@all"),
    ("WRONGTYPE ", None, f"holds another program's data under {PREFIX}*: use another database number, redis://host/<n>"),
)


def explain(error: Exception, password: str = "") -> str:
    """Return what is the matter with Redis and what to do, without the password."""
    said = str(error)
    for code, kind, advice in _ADVICE:
        if (kind is not None and isinstance(error, kind)) or said.startswith(code) or f"-{code}" in said:
            return advice
    if password:
        said = said.replace(password, "***")
    match error:
        case MasterNotFoundError():
            return "has no primary that the Sentinels know of: look at them (SENTINEL MASTERS) and at the service's name"
        case redis.exceptions.MaxConnectionsError():
            return "does not keep up: look at its load (SLOWLOG, CPU)"
        case redis.TimeoutError() | TimeoutError():
            return f"has not answered for {TIMEOUT_S:g} s: see that it runs, and that nothing on the way drops packets"
        case redis.ConnectionError() | OSError():
            return f"cannot be reached: start it, or mend its URL ({said})"
    return f"refuses what it is asked: {said}"


def _outcome(outcome: Sequence[Any]) -> int | Repeat:
    if len(outcome) == 3:
        return outcome[0]  # type: ignore[no-any-return]
    offset, digest, answer, _ = outcome
    return Repeat(int(offset), digest, answer)


def _reach(outcome: Sequence[Any]) -> DeliveryCount:
    return DeliveryCount(outcome[1], outcome[2]) if len(outcome) == 3 else DeliveryCount.decode(outcome[2])
