"""The store in the memory of this process: its content is gone when the process ends. For development, tests, and live-only
use.

Thread-safe: each public method takes the lock once and calls nothing while it holds the lock. A notification is held
once, whatever the number of its users, until it is on no user's list or its time is over. Retention by age is applied
by the calls, each for a bounded number of notifications, so that no call pays for an idle night.
"""

import heapq
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from socket_server.inbox.inbox import (
    IDEMPOTENCY_S,
    MAX_IDEMPOTENCY_KEYS,
    MICROSECONDS,
    Appended,
    Claim,
    Clock,
    Entry,
    Page,
    Repeat,
    Retention,
    Stored,
    clock_us,
)

# Pairs (notification, user) that a call drops by age, beside twice what it adds: about 0.2 ms.
_PURGE_PAIRS = 1_000


class _Kept:
    """A notification, which the lists of its users share."""

    __slots__ = ("body", "expires", "lists", "offset", "user_ids")

    def __init__(self, offset: int, body: bytes, expires: int | None, user_ids: tuple[str, ...]) -> None:
        self.offset = offset
        self.body = body
        self.expires = expires  # microseconds since 1970; None if retention ends it first
        self.user_ids = user_ids
        self.lists = len(user_ids)  # that it is still on


class _List:
    """A user's notifications, oldest first. dropped: the newest offset that retention by count dropped (0: none).

    Removing the first one only moves `_start`, which is O(1). A deque would take six times the memory for a user with one
    notification.
    """

    __slots__ = ("_all", "_start", "dropped")

    def __init__(self) -> None:
        self._all: list[_Kept | None] = []
        self._start = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._all) - self._start

    def append(self, kept: _Kept) -> None:
        self._all.append(kept)

    def first(self) -> _Kept:
        kept = self._all[self._start]
        assert kept is not None
        return kept

    def pop_first(self) -> _Kept:
        kept = self.first()
        self._all[self._start] = None
        self._start += 1
        if self._start * 2 > len(self._all):
            del self._all[: self._start]
            self._start = 0
        return kept

    def between(self, first: int, last: int | None) -> Iterator[_Kept]:
        """Yield the notifications with first <= offset <= last (None: no end)."""
        at = bisect_left(self._all, first, lo=self._start, key=_offset_of)
        for index in range(at, len(self._all)):
            kept = self._all[index]
            assert kept is not None
            if last is not None and kept.offset > last:
                return
            yield kept


def _offset_of(kept: _Kept | None) -> int:
    assert kept is not None
    return kept.offset


class MemoryInbox:
    """An Inbox in this process's memory."""

    def __init__(self, retention: Retention, clock: Clock = clock_us) -> None:
        self._retention = retention
        self._ttl = round(retention.ttl_s * MICROSECONDS)
        self._clock = clock
        self._lock = threading.Lock()
        self._began = self._head = clock()
        self._purged = 0  # the newest offset dropped by age, whatever the clock says later
        self._kept: OrderedDict[int, _Kept] = OrderedDict()  # by offset, oldest first
        self._users: dict[str, _List] = {}  # no list is empty
        self._forgotten: OrderedDict[str, int] = OrderedDict()  # user -> the head when it was forgotten, oldest first
        self._expiring: list[tuple[int, int]] = []  # a heap of (expires, offset)
        self._claims: OrderedDict[str, tuple[int, Claim]] = OrderedDict()  # key -> (offset, claim), oldest first

    @property
    def place(self) -> str:
        return "memory://"

    def open(self) -> int:
        return self._head

    def append(self, entries: Sequence[Entry], after: int | None = None) -> Appended:
        outcomes: list[int | Repeat] = []
        with self._lock:
            now = self._clock()
            pairs = 0
            for entry in entries:
                repeat = self._claimed(entry.claim, now)
                if repeat is not None:
                    outcomes.append(repeat)
                    continue
                self._head = max(now, self._head + 1)
                outcomes.append(self._head)
                if entry.claim is not None:
                    self._claims[entry.claim.key] = (self._head, entry.claim)
                    if len(self._claims) > MAX_IDEMPOTENCY_KEYS:
                        self._claims.popitem(last=False)
                if entry.ttl_s != 0 and entry.user_ids:
                    self._keep(entry, now)
                    pairs += len(entry.user_ids)
            self._purge(now, _PURGE_PAIRS + 2 * pairs)
        return Appended(tuple(outcomes))

    def amend(self, key: str, answer: bytes) -> None:
        with self._lock:
            if key in self._claims:
                offset, claim = self._claims[key]
                self._claims[key] = (offset, Claim(key, claim.digest, answer))

    def since(self, user_id: str, after: int, until: int | None, limit: int, max_bytes: int) -> Page:
        with self._lock:
            now = self._clock()
            self._purge(now, _PURGE_PAIRS)
            found = self._visible(user_id, after, until, now)
            users = self._users.get(user_id)
            dropped = max(self._forgotten.get(user_id, 0), users.dropped if users is not None else 0)
            complete = max(self._began, now - self._ttl, self._purged, dropped) <= after <= self._head
            page: list[Stored] = []
            size = 0
            for kept in found[:limit]:
                size += len(kept.body)
                if page and size > max_bytes:
                    break
                page.append(Stored(kept.offset, kept.body))
        return Page(tuple(page), len(found), complete)

    def forget(self, user_id: str) -> int:
        with self._lock:
            now = self._clock()
            count = len(self._visible(user_id, 0, None, now))
            users = self._users.pop(user_id, None)
            for kept in users.between(0, None) if users is not None else ():
                self._unlist(kept)
            self._forgotten[user_id] = self._head
            self._forgotten.move_to_end(user_id)
            self._purge(now, _PURGE_PAIRS)
        return count

    def check(self) -> None:
        """Memory always accepts entries."""

    def close(self) -> None:
        """Nothing to release: the content ends with the object."""

    # Under the lock

    def _claimed(self, claim: Claim | None, now: int) -> Repeat | None:
        if claim is None or claim.key not in self._claims:
            return None
        offset, first = self._claims[claim.key]
        if offset > now - IDEMPOTENCY_S * MICROSECONDS:
            return Repeat(offset, first.digest, first.answer)
        del self._claims[claim.key]  # it is claimed anew, and must be the last
        return None

    def _keep(self, entry: Entry, now: int) -> None:
        """Put an entry on the lists of its users."""
        expires = None
        if entry.ttl_s is not None and entry.ttl_s < self._retention.ttl_s:
            expires = now + round(entry.ttl_s * MICROSECONDS)
            heapq.heappush(self._expiring, (expires, self._head))
        kept = self._kept[self._head] = _Kept(self._head, entry.notification, expires, entry.user_ids)
        for user_id in entry.user_ids:
            users = self._users.get(user_id)
            if users is None:
                users = self._users[user_id] = _List()
            users.append(kept)
            if len(users) > self._retention.max_per_user:
                oldest = users.pop_first()
                users.dropped = oldest.offset
                self._unlist(oldest)

    def _unlist(self, kept: _Kept) -> None:
        """Take a notification off one list, and drop it if it is on none."""
        kept.lists -= 1
        if kept.lists == 0:
            self._kept.pop(kept.offset, None)

    def _visible(self, user_id: str, after: int, until: int | None, now: int) -> list[_Kept]:
        users = self._users.get(user_id)
        if users is None:
            return []
        first = max(after + 1, now - self._ttl)
        return [kept for kept in users.between(first, until) if kept.expires is None or kept.expires > now]

    def _purge(self, now: int, pairs: int) -> None:
        """Drop what is over: notifications up to this number of pairs, and a bounded number of everything else."""
        horizon = now - self._ttl
        while self._kept and pairs > 0:
            offset = next(iter(self._kept))
            if offset >= horizon:
                break
            kept = self._kept.pop(offset)
            self._purged = max(self._purged, offset)
            pairs -= len(kept.user_ids)
            for user_id in kept.user_ids:
                self._purge_list(user_id, kept)
        for _ in range(_PURGE_PAIRS):
            if not self._expiring or self._expiring[0][0] > now:
                break
            # It stays on the users' lists, because it still counts for retention by count.
            expired = self._kept.get(heapq.heappop(self._expiring)[1])
            if expired is not None:
                expired.body = b""
                expired.expires = 0  # even if the clock goes back
        if len(self._expiring) > 2 * len(self._kept) + _PURGE_PAIRS:
            self._expiring = [each for each in self._expiring if each[1] in self._kept]
            heapq.heapify(self._expiring)
        for _ in range(_PURGE_PAIRS):
            if not self._forgotten or next(iter(self._forgotten.values())) >= horizon:
                break
            self._purged = max(self._purged, self._forgotten.popitem(last=False)[1])
        for _ in range(_PURGE_PAIRS):
            if not self._claims or next(iter(self._claims.values()))[0] > now - IDEMPOTENCY_S * MICROSECONDS:
                break
            self._claims.popitem(last=False)

    def _purge_list(self, user_id: str, kept: _Kept) -> None:
        users = self._users.get(user_id)
        # It may have left this list before, by count or by forget().
        if users is not None and users.first() is kept:
            users.pop_first()
            if not users:
                del self._users[user_id]
