"""The store in Redis (6.2 or later, or Valkey), which any number of server processes share.

Each change is one Lua script, which Redis runs as one step: it gives offsets, checks idempotency keys, stores, and appends
to the log that all nodes read in the same order. It is as durable as Redis is: see docs/inbox.md for `appendonly`.
The keys are described in append.lua.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import redis

from socket_server import log
from socket_server.inbox.inbox import (
    IDEMPOTENCY_S,
    MAX_IDEMPOTENCY_KEYS,
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
from socket_server.inbox.redis.encoding import decode_log, encode_entries
from socket_server.redis_access import lua
from socket_server.redis_access.advice import explain
from socket_server.redis_access.client import TIMEOUT_S, connect
from socket_server.redis_access.dedicated_connection import DedicatedConnection
from socket_server.redis_access.keys import DEFAULT_KEYS, Keys, encode

_log = log.logger("Server")

# The log covers this time, within this size. The clients of a node that was away for longer recover from their inboxes.
LOG_S = 120
LOG_BYTES = 64_000_000

# Concurrent calls; each takes a connection. Writers have their own, so that recoveries never delay a broadcast.
_READERS = 8
_WRITERS = 4

# Entries of the log that one append returns. A node that was away catches up in short steps.
_MAX_FOREIGN_ENTRIES = 50

_OLDEST_VERSION = (6, 2)  # LPOP with a count, XADD with MINID
# Lua's numbers are doubles, which hold offsets exactly up to here: the year 2255.
_MAX_OFFSET = 2**53 - 1


class RedisInbox:
    """An Inbox in Redis. Thread-safe; on gevent its sockets are cooperative."""

    def __init__(
        self,
        url: str,
        retention: Retention,
        clock: Clock | None = None,
        keys: Keys = DEFAULT_KEYS,
        *,
        counts_connections: bool = False,
    ) -> None:
        """url: see redis_access/client.py. clock: in place of Redis's own, for tests.

        counts_connections: whether Appended.counts is filled from the cluster's hashes of connections.
        Does not connect yet. Raises ConfigError if the URL is malformed.
        """
        self._retention = retention
        self._ttl = round(retention.ttl_s * MICROSECONDS)
        self._clock = clock
        self._keys = keys
        self._connections = keys.connections if counts_connections else ""
        self._client, self._where = connect(url, _READERS + _WRITERS)
        self._password = self._client.connection_pool.connection_kwargs.get("password") or ""
        self._append_connection = DedicatedConnection(self._client)
        self._append = self._script("common", "append")
        self._since = self._script("common", "since")
        self._forget = self._script("common", "forget")
        self._amend = self._script("amend")
        self._read_slots = threading.BoundedSemaphore(_READERS)
        self._write_slots = threading.BoundedSemaphore(_WRITERS)
        self._lock = threading.Lock()
        self._head = 0  # the newest offset that this process knows

    @property
    def place(self) -> str:
        return self._where

    def open(self) -> int:
        with self._calling(self._write_slots):
            self._check_server()
            return self._append_nothing()

    def append(self, entries: Sequence[Entry], after: int | None = None) -> Appended:
        if not entries and after is None:
            return Appended(())
        if after is not None:
            self._learn_head(after)
        with self._calling(self._write_slots):
            arguments = self._append_arguments(entries, after)
            head, before, more, foreign, *outcomes = self._append_connection.run(self._append, *arguments)
            self._learn_head(head)
        records = decode_log(foreign, after or 0)
        return Appended(
            tuple([_outcome(each) for each in outcomes]),
            tuple(records),
            after is None or _is_gapless(after, records, int(before)),
            tuple([_count(each) for each in outcomes]) if self._connections else (),
            bool(more),
        )

    def amend(self, key: str, answer: bytes) -> None:
        with self._calling(self._write_slots):
            self._amend(keys=[self._keys.claim(key)], args=[answer])

    def since(self, user_id: str, after: int, until: int | None, limit: int, max_bytes: int) -> Page:
        start = min(max(after, 0), _MAX_OFFSET)
        end = _MAX_OFFSET if until is None else min(until, _MAX_OFFSET)
        with self._calling(self._read_slots):
            head, anew, complete_after, total, missing, found = self._since(
                args=[*self._arguments(), encode(user_id), start, end, limit, max_bytes]
            )
            if not anew:
                self._learn_head(head)
            complete = not missing and int(complete_after) <= after <= int(head)
        offsets, bodies = found[::2], found[1::2]
        page = tuple(Stored(int(offset), body) for offset, body in zip(offsets, bodies, strict=True))
        return Page(page, total, complete)

    def forget(self, user_id: str) -> int:
        with self._calling(self._write_slots):
            head, count = self._forget(args=[*self._arguments(), encode(user_id)])
            self._learn_head(head)
        return int(count)

    def check(self) -> None:
        with self._calling(self._write_slots):
            self._append_nothing()

    def close(self) -> None:
        self._client.close()
        self._client.connection_pool.disconnect()

    # Scripts

    def _script(self, *names: str) -> Any:
        return self._client.register_script(lua.load("socket_server.inbox.redis", *names))

    def _arguments(self) -> list[str | bytes | int]:
        """Return the arguments of common.lua."""
        return [self._keys.prefix, "" if self._clock is None else self._clock(), self._head, self._ttl]

    def _append_arguments(self, entries: Sequence[Entry], after: int | None) -> list[str | bytes | int]:
        arguments = self._arguments()
        arguments += [self._retention.max_per_user, IDEMPOTENCY_S * MICROSECONDS, LOG_BYTES, LOG_S * MICROSECONDS]
        arguments += ["" if after is None else after, self._connections, _MAX_FOREIGN_ENTRIES, MAX_IDEMPOTENCY_KEYS]
        if entries:
            arguments += encode_entries(entries, self._retention.ttl_s, self._keys)
        return arguments

    def _append_nothing(self) -> int:
        """Run append.lua without entries, which checks that Redis accepts writes; return the head."""
        head, *_ = self._append(args=self._append_arguments((), None))
        self._learn_head(head)
        return int(head)

    def _learn_head(self, head: bytes | int) -> None:
        with self._lock:
            self._head = max(self._head, int(head))

    # Errors

    @contextmanager
    def _calling(self, slots: threading.BoundedSemaphore) -> Iterator[None]:
        """Take a slot for a call. Raises InboxUnavailable for every error of Redis or of the network."""
        if not slots.acquire(timeout=TIMEOUT_S):
            raise InboxUnavailable(f"the inbox at {self._where} does not keep up: check its load (SLOWLOG, CPU)")
        try:
            yield
        except (redis.RedisError, OSError) as error:
            advice = explain(error, self._keys.prefix, self._password)
            raise InboxUnavailable(f"the inbox at {self._where} {advice}") from None
        finally:
            slots.release()

    def _check_server(self) -> None:
        """Refuse a Redis that is too old, and warn of one that may evict notifications."""
        try:
            facts: Mapping[str, Any] = self._client.info()
        except redis.ResponseError:
            return  # this user is not allowed to ask
        version = str(facts.get("redis_version", ""))
        numbers = tuple(int(each) for each in version.split(".")[:2] if each.isdigit())
        if len(numbers) == 2 and numbers < _OLDEST_VERSION:
            raise InboxUnavailable(f"the inbox at {self._where} is Redis {version}: use 6.2 or later")
        policy = facts.get("maxmemory_policy", "noeviction")
        if facts.get("maxmemory") and policy != "noeviction":
            _log.warning(
                "the inbox at %s may evict notifications: set its maxmemory-policy to noeviction (it is %s)",
                self._where,
                policy,
            )


def _is_gapless(after: int, records: Sequence[Record], before: int) -> bool:
    """Return whether records are everything between the offset `after` and the offset `before` the next entry."""
    last = after
    for each in records:
        if each.before > last:
            return False
        last = each.offset
    return before <= last


def _outcome(outcome: Sequence[Any]) -> int | Repeat:
    if len(outcome) == 3:
        return outcome[0]  # type: ignore[no-any-return]
    offset, digest, answer, _ = outcome
    return Repeat(int(offset), digest, answer)


def _count(outcome: Sequence[Any]) -> DeliveryCount:
    return DeliveryCount(outcome[1], outcome[2]) if len(outcome) == 3 else DeliveryCount.decode(outcome[2])
