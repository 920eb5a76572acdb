"""What users missed: the protocol that every store keeps, and its values.

An offset is a place in the order of all notifications: microseconds since 1970, bumped to stay strictly increasing, never
reused, also after a crash. Stores: memory.py (this process only), embedded.py (SQLite, in a process of its own), redis.py.
All of them pass tests/inbox/test_contract.py.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from socket_server.errors import InboxUnavailable as InboxUnavailable  # part of the protocol

# For how long a repeat with the same Idempotency-Key gets the first answer (contract, section 2).
IDEMPOTENCY_S = 86_400

MICROSECONDS = 1_000_000  # in a second, which is what offsets count

Clock = Callable[[], int]  # microseconds since 1970


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept: for how many seconds, and how many of each user. Counted at arrival: the newest stay."""

    ttl_s: float = 604_800
    max_per_user: int = 1_000


@dataclass(frozen=True, slots=True)
class DeliveryCount:
    """How far a notification goes: so many of its users have a connection, and so many connections those are."""

    users: int
    connections: int

    def encode(self) -> bytes:
        """Return what an idempotency key keeps of it: `[users,connections]`, as JSON."""
        return b"[%d,%d]" % (self.users, self.connections)

    @classmethod
    def decode(cls, text: bytes) -> "DeliveryCount":
        """Read what encode() wrote. Raises ValueError."""
        users, connections = text.strip(b"[]").split(b",")[:2]  # a third was there once
        return cls(int(users), int(connections))


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key, stored together with what it was used for.

    digest: of the request's bytes; answer: what a repeat is answered, a DeliveryCount encoded.
    """

    key: str
    digest: bytes
    answer: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One notification to keep for its users (each named once).

    ttl_s: seconds to keep it, at most those of the retention; None: as long as the retention says; 0: not at all, it only
    takes an offset.
    """

    user_ids: tuple[str, ...]
    notification: bytes
    ttl_s: float | None = None
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Repeat:
    """An entry that was not stored, since its key was used within IDEMPOTENCY_S: by what, and how that was answered."""

    offset: int
    digest: bytes
    answer: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """A notification with its users.

    before: the offset before it in the order of all; 0 where the store does not say.
    """

    offset: int
    user_ids: tuple[str, ...]
    notification: bytes
    before: int = 0


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of entries: for each, in order, its offset or the Repeat that it is.

    others: what was stored before them and the caller has not delivered, oldest first. complete: those are all.
    reach: of each entry, over all nodes that share the store; empty where it does not know of any. more: nothing was
    stored, for there are more others than are handed out at once: deliver these and append again.
    """

    outcomes: tuple[int | Repeat, ...]
    others: tuple[Record, ...] = ()
    complete: bool = True
    reach: tuple[DeliveryCount, ...] = ()
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
    """Some of what a user missed, oldest first.

    total: how many there are in the range asked for, these included; complete: nothing was dropped after its start.
    """

    notifications: tuple[Stored, ...]
    total: int
    complete: bool


class Inbox(Protocol):
    """A store. Safe from any thread or greenlet; may block its caller, and nobody else. All raise InboxUnavailable."""

    @property
    def place(self) -> str:
        """Where it is, for people to read: without a password."""

    def open(self) -> int:
        """Make ready and return the head: the newest offset given, or where the store's life began."""

    def append(self, entries: Sequence[Entry], after: int | None = None) -> Appended:
        """Store entries together, all or none; they are durable (as far as the store is) when this returns.

        after: the newest offset that the caller has delivered; None: it delivers nothing. What lies between it and these
        entries comes back as Appended.others: what another process has stored (a reload), and what an append of the
        caller's own has stored whose answer was lost. What is live only (ttl_s 0) may be missing there.
        """

    def amend(self, key: str, answer: bytes) -> None:
        """Set another answer for a claimed key."""

    def since(self, user_id: str, after: int, until: int | None, limit: int, max_bytes: int) -> Page:
        """Return what the user has in the range after < offset <= until (None: no end).

        limit, max_bytes: of the page's notifications; one is returned whatever its size. What went by its own ttl_s is
        skipped. Page.complete is False where retention (by age, by count, or forget) has dropped something after `after`,
        where the store's life began after it, and where it lies after the head.
        """

    def forget(self, user_id: str) -> int:
        """Drop what is kept for a user; return how many notifications that were."""

    def check(self) -> None:
        """Return where the store could take an entry now."""

    def close(self) -> None:
        """Let go of everything; what was appended stays where it is."""


def clock_us() -> int:
    """Return microseconds since 1970."""
    return time.time_ns() // 1_000
