"""The inbox: what is kept for users. The protocol of every store, and its values.

An offset is a place in the one order of all notifications: microseconds since 1970, raised if necessary to be strictly
increasing, never reused, also after a crash. Stores: memory.py, sqlite/ and redis/. All pass tests/inbox/test_contract.py.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from socket_server.errors import InboxUnavailable as InboxUnavailable  # part of the protocol

# How long an idempotency key is kept (docs/rest-api.md, "Idempotency").
IDEMPOTENCY_S = 86_400

# Idempotency keys that a store keeps; above it the oldest are forgotten first. A key takes about 200 bytes in SQLite and
# 400 bytes in Redis.
MAX_IDEMPOTENCY_KEYS = 1_000_000

MICROSECONDS = 1_000_000  # in a second

Clock = Callable[[], int]  # returns microseconds since 1970


@dataclass(frozen=True, slots=True)
class Retention:
    """How long notifications are kept, in seconds, and how many for each user. Above it the oldest are dropped."""

    ttl_s: float = 604_800
    max_per_user: int = 1_000


@dataclass(frozen=True, slots=True)
class DeliveryCount:
    """The users of a notification who have a connection, and the number of their connections."""

    users: int
    connections: int

    def encode(self) -> bytes:
        """Return the form that is stored under an idempotency key: `[users,connections]`, as JSON."""
        return b"[%d,%d]" % (self.users, self.connections)

    @classmethod
    def decode(cls, text: bytes) -> "DeliveryCount":
        """Return the value that encode() made. Raises ValueError."""
        users, connections = text.strip(b"[]").split(b",")[:2]  # an older version wrote a third number
        return cls(int(users), int(connections))


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key, which is stored together with its notification.

    digest: of the request's bytes. answer: an encoded DeliveryCount, which a repeat is answered with.
    former_key: the key under which a version before this one stored a claim; None if there is none. A repeat is found there
    too.
    """

    key: str
    digest: bytes
    answer: bytes
    former_key: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A notification to store for its users, each named once.

    ttl_s: seconds to keep it, at most the retention's; None: the retention's; 0: it is not kept, and only gets an offset.
    """

    user_ids: tuple[str, ...]
    notification: bytes
    ttl_s: float | None = None
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Repeat:
    """The outcome of an entry that was not stored, because its key was used within IDEMPOTENCY_S: the first use."""

    offset: int
    digest: bytes
    answer: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """A stored notification with its users. before: the offset before it in the order of all; 0 if unknown."""

    offset: int
    user_ids: tuple[str, ...]
    notification: bytes
    before: int = 0


@dataclass(frozen=True, slots=True)
class Appended:
    """The result of append().

    outcomes: for each entry, in order, its offset or the Repeat that it is.
    foreign_records: what others stored before these entries and the caller has not delivered, oldest first.
    complete: whether those are all of them.
    counts: for each entry, over all nodes that share the store; empty if the store does not know the connections.
    more: nothing was stored, because there are more foreign records than are returned at once: deliver these, then append
    again.
    """

    outcomes: tuple[int | Repeat, ...]
    foreign_records: tuple[Record, ...] = ()
    complete: bool = True
    counts: tuple[DeliveryCount, ...] = ()
    more: bool = False


class Read(NamedTuple):
    """The arguments of Inbox.since()."""

    user_id: str
    after: int
    until: int | None
    limit: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A notification of a user."""

    offset: int
    notification: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """A page of what a user missed, oldest first.

    total: how many there are in the requested range, those of this page included.
    complete: whether retention dropped nothing after the start of the range.
    """

    notifications: tuple[Stored, ...]
    total: int
    complete: bool


class Inbox(Protocol):
    """A store. Safe from any thread or greenlet. A call may block its caller. Every call may raise InboxUnavailable."""

    @property
    def place(self) -> str:
        """Where the store is, for messages: a path or a URL without a password."""

    def open(self) -> int:
        """Open the store and return the head: the newest offset given, or the one at which the store began."""

    def append(self, entries: Sequence[Entry], after: int | None = None) -> Appended:
        """Store entries together, all or none. They are as durable as the store can make them when this returns.

        after: the newest offset that the caller has delivered; None if it does not deliver. What lies between it and these
        entries is returned as Appended.foreign_records: what other processes have stored, and what an earlier append of
        the caller has stored whose answer was lost. Notifications that are not kept (ttl_s 0) may be missing there.
        """

    def amend(self, key: str, answer: bytes) -> None:
        """Replace the answer that is stored under an idempotency key."""

    def since(self, user_id: str, after: int, until: int | None, limit: int, max_bytes: int) -> Page:
        """Return the notifications of a user in the range after < offset <= until. until None: no end.

        limit, max_bytes: of the page; it has at least one notification, whatever its size. Notifications whose own ttl_s
        is over are skipped. Page.complete is False if retention (by age or count) or forget() dropped something after
        `after`, if the store began after it, or if it lies beyond the head.
        """

    def forget(self, user_id: str) -> int:
        """Delete what is kept for a user; return the number of notifications."""

    def check(self) -> None:
        """Return if the store accepts entries now."""

    def close(self) -> None:
        """Release all resources. What was appended stays."""


def clock_us() -> int:
    """Return microseconds since 1970."""
    return time.time_ns() // 1_000
