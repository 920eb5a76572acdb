"""The store of this process only: what it holds is gone when the process ends. For development, tests, and live-only use.

Thread-safe: each public method takes the lock once and calls nobody while holding it. A body is held once, whatever the
number of its users, and goes when no user's list names it any more or its time is over. What retention by age lets go is
let go by whoever calls next, a bounded part at a time: no call pays for an idle night.
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

# What one call lets go of by age, in pairs of a notification and a user, beside twice what it adds: about 0.2 ms.
_PURGED_AT_ONCE = 1_000


class _Kept:
    """A notification, shared by the lists of its users."""

    __slots__ = ("body", "expires", "lists", "offset", "user_ids")

    def __init__(self, offset: int, body: bytes, expires: int | None, user_ids: tuple[str, ...]) -> None:
        self.offset = offset
        self.body = body
        self.expires = expires  # microseconds since 1970, where its own ttl ends it before retention does
        self.user_ids = user_ids
        self.lists = len(user_ids)  # how many still name it


class _List:
    """What one user has, oldest first, and the newest offset that retention by count has dropped from it (0: none).

    What leaves at the front only moves `_start`, so that it costs O(1) however long the list is; a deque would be six
    times the size for a user with a single notification.
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
        """Yield what lies at first <= offset <= last (None: no end)."""
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
        self._purged = 0  # the newest offset that went by age: a clock that goes back does not bring it back
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
            self._purge(now, _PURGED_AT_ONCE + 2 * pairs)
        return Appended(tuple(outcomes))

    def amend(self, key: str, answer: bytes) -> None:
        with self._lock:
            if key in self._claims:
                offset, claim = self._claims[key]
                self._claims[key] = (offset, Claim(key, claim.digest, answer))

    def since(self, user_id: str, after: int, until: int | None, limit: int, max_bytes: int) -> Page:
        with self._lock:
            now = self._clock()
            self._purge(now, _PURGED_AT_ONCE)
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
            self._purge(now, _PURGED_AT_ONCE)
        return count

    def check(self) -> None:
        """Memory takes entries as long as there is a process."""

    def close(self) -> None:
        """Nothing is open: what is held goes with the object."""

    # Under the lock

    def _claimed(self, claim: Claim | None, now: int) -> Repeat | None:
        if claim is None or claim.key not in self._claims:
            return None
        offset, first = self._claims[claim.key]
        if offset > now - IDEMPOTENCY_S * MICROSECONDS:
            return Repeat(offset, first.digest, first.answer)
        del self._claims[claim.key]  # so that it comes last when it is claimed anew
        return None

    def _keep(self, entry: Entry, now: int) -> None:
        """Put an entry on the lists of its users, at the head."""
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
        """Take a notification off one list; what is on none any more goes."""
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
        """Let go of what is over: of notifications so many pairs, of the rest so many at once."""
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
        for _ in range(_PURGED_AT_ONCE):
            if not self._expiring or self._expiring[0][0] > now:
                break
            # On the users' lists it stays: it still counts for retention by count.
            expired = self._kept.get(heapq.heappop(self._expiring)[1])
            if expired is not None:
                expired.body = b""
                expired.expires = 0  # for good, should the clock go back
        if len(self._expiring) > 2 * len(self._kept) + _PURGED_AT_ONCE:
            self._expiring = [each for each in self._expiring if each[1] in self._kept]
            heapq.heapify(self._expiring)
        for _ in range(_PURGED_AT_ONCE):
            if not self._forgotten or next(iter(self._forgotten.values())) >= horizon:
                break
            self._purged = max(self._purged, self._forgotten.popitem(last=False)[1])
        for _ in range(_PURGED_AT_ONCE):
            if not self._claims or next(iter(self._claims.values()))[0] > now - IDEMPOTENCY_S * MICROSECONDS:
                break
            self._claims.popitem(last=False)

    def _purge_list(self, user_id: str, kept: _Kept) -> None:
        users = self._users.get(user_id)
        # It may have left this list before: by count, or because the user was forgotten.
        if users is not None and users.first() is kept:
            users.pop_first()
            if not users:
                del self._users[user_id]
