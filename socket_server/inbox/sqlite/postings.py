"""Posting lists: which notifications a user has, by their offsets. Of the SQLite store; the caller owns the transaction.

New pairs of user and offset come together in memory (a restart reads them back from the table `pending`). When there are
enough they are moved to the table `postings`, a slice of users at a time, as chunks of packed offsets. So a broadcast to a
thousand users touches no thousand pages: measured, a row for each user and notification cost more than writing to that
user's socket.

To give each of a thousand users its offset costs more than all the rest of storing. So lists stay as they came until
somebody asks, or a second is over, or there are many; users who are told several things together get them at once.
"""

import sqlite3
import time
from array import array
from collections import Counter
from collections.abc import Sequence

from socket_server.inbox.sqlite.encoded_entry import unpack_users

# A user's newest chunk grows to so many offsets before the next one begins: few rows, and small ones to rewrite.
CHUNK = 64
USER_WEIGHT = 8  # in pairs: a user with a single one takes that much more memory, and work on its way to the disk
# Lists with so many users together stay as they came: about 4 ms of work for whoever asks first.
_UNDEALT = 10_000
_USERS_PER_LOOK = 32  # at the clock
_SWEPT_AT_ONCE = 500

# offsets: packed 64-bit integers in the machine's order, ascending; before: the user's last offset before this chunk began;
# total: how many offsets the user has had up to the end of this chunk, dropped ones included.
SCHEMA = """
CREATE TABLE postings (
    user TEXT, first INTEGER, last INTEGER NOT NULL, before INTEGER NOT NULL, total INTEGER NOT NULL, offsets BLOB NOT NULL,
    PRIMARY KEY (user, first)
) WITHOUT ROWID
"""


class Postings:
    """The posting lists of all users, in memory and on disk together."""

    def __init__(self, max_per_user: int) -> None:
        self._max = max_per_user
        self._fresh_pairs = 0
        self._fresh: dict[str, list[int]] = {}  # user -> offsets, in no order; in memory only
        self._undealt: dict[bytes, list[int]] = {}  # the same by whole lists of users, packed
        self._undealt_users = 0
        self._moving: dict[str, list[int]] = {}  # user -> offsets, on their way to the disk
        self._order: list[str] = []  # in which it goes there, the next one last
        self._sweep_from: str | None = None

    @property
    def weight(self) -> int:
        """How much has come together in memory: pairs, and what a user costs beside them as soon as it has its own."""
        return self._fresh_pairs + USER_WEIGHT * len(self._fresh)

    @property
    def moving(self) -> bool:
        """Whether some are on their way to the disk."""
        return bool(self._moving)

    def add(self, offset: int, users: bytes, count: int) -> None:
        """Give so many users, packed, a notification."""
        self._fresh_pairs += count
        offsets = self._undealt.get(users)
        if offsets is not None:
            offsets.append(offset)
            return
        self._undealt[users] = [offset]
        self._undealt_users += count
        while self._undealt_users > _UNDEALT:
            self.deal_one()

    def add_dealt(self, offset: int, user_ids: Sequence[str]) -> None:
        """add(), so that nobody who asks waits for it."""
        self._fresh_pairs += len(user_ids)
        self._deal([offset], user_ids)

    def deal_one(self) -> bool:
        """Give the users of the list that waits longest their own; return whether there was one."""
        if not self._undealt:
            return False
        users = next(iter(self._undealt))
        offsets = self._undealt.pop(users)
        user_ids = unpack_users(users)
        self._undealt_users -= len(user_ids)
        self._deal(offsets, user_ids)
        return True

    def _deal_out(self) -> None:
        while self._undealt:
            self.deal_one()

    def _deal(self, offsets: list[int], user_ids: Sequence[str]) -> None:
        fresh = self._fresh
        for user_id in user_ids:
            try:
                fresh[user_id].extend(offsets)
            except KeyError:
                fresh[user_id] = offsets[:]

    def of(self, db: sqlite3.Connection, user_id: str, after: int) -> tuple[list[int], int]:
        """Return the offsets that retention by count leaves a user, ascending, and the newest one it has dropped (0: none).

        Of those up to `after` some may be missing, and what was dropped before it is not looked for.
        """
        wanted = self._max + 1  # one more tells whether something was dropped
        chunks: list[Sequence[int]] = []
        count, newest, dropped = 0, 0, 0
        for last, before, packed in db.execute(
            "SELECT last, before, offsets FROM postings WHERE user = ? ORDER BY first DESC", (user_id,)
        ):
            newest = newest or last
            if last <= after:
                dropped = 0
                break
            dropped = before
            chunks.append(_unpack(packed))
            count += len(chunks[-1])
            if count >= wanted:
                break
        offsets = [offset for chunk in reversed(chunks) for offset in chunk] + self._in_memory(user_id, newest)
        if len(offsets) >= wanted:
            dropped = max(dropped, offsets[-wanted])
            offsets = offsets[1 - wanted :]
        return offsets, dropped

    def _in_memory(self, user_id: str, indexed: int) -> list[int]:
        """Return a user's offsets that are not on disk, ascending. indexed: the last one that is (a crash may leave some in
        both)."""
        self._deal_out()
        both = (self._moving.get(user_id, ()), self._fresh.get(user_id, ()))
        return sorted(offset for offsets in both for offset in offsets if offset > indexed)

    # To the disk

    def begin_moving(self) -> None:
        """All that is in memory now is to go to the disk."""
        self._deal_out()
        self._moving, self._fresh, self._fresh_pairs = self._fresh, {}, 0
        # In the order of the table, where neighbours share pages.
        self._order = sorted(self._moving, reverse=True)

    def move(self, db: sqlite3.Connection, seconds: float) -> tuple[list[str], Counter[int]]:
        """Write some users' offsets to the disk, for about so long; return these users, and the offsets that retention by
        count drops for it (how often each). After the commit moved() lets them go from memory."""
        ends = time.monotonic() + seconds
        done: list[str] = []
        gone: Counter[int] = Counter()
        while len(done) < len(self._order) and time.monotonic() < ends:
            for user_id in self._order[-len(done) - 1 : -len(done) - 1 - _USERS_PER_LOOK : -1]:
                done.append(user_id)
                if user_id in self._moving:
                    gone.update(self._write(db, user_id, self._moving[user_id]))
        return done, gone

    def moved(self, user_ids: Sequence[str]) -> None:
        """These users' offsets are on the disk."""
        del self._order[len(self._order) - len(user_ids) :]
        for user_id in user_ids:
            self._moving.pop(user_id, None)

    def _write(self, db: sqlite3.Connection, user_id: str, offsets: Sequence[int]) -> list[int]:
        newest = db.execute(
            "SELECT first, last, total, offsets FROM postings WHERE user = ? ORDER BY first DESC LIMIT 1", (user_id,)
        ).fetchone()
        first, last, total, packed = newest or (0, 0, 0, b"")
        offsets = sorted(offset for offset in offsets if offset > last)
        if not offsets:
            return []
        total += len(offsets)
        surplus, offsets = offsets[: -self._max], offsets[-self._max :]
        if 0 < len(packed) < CHUNK * 8 and not surplus:
            db.execute(
                "UPDATE postings SET last = ?, total = ?, offsets = ? WHERE user = ? AND first = ?",
                (offsets[-1], total, packed + _pack(offsets), user_id, first),
            )
        else:
            before = surplus[-1] if surplus else last
            db.execute(
                "INSERT INTO postings (user, first, last, before, total, offsets) VALUES (?, ?, ?, ?, ?, ?)",
                (user_id, offsets[0], offsets[-1], before, total, _pack(offsets)),
            )
        return surplus + (self._drop(db, user_id, total - self._max) if newest else [])

    def _drop(self, db: sqlite3.Connection, user_id: str, surplus: int) -> list[int]:
        """Delete a user's oldest chunks, as long as no more than the user's first `surplus` offsets go."""
        gone: list[int] = []
        while True:
            first, total, packed = db.execute(
                "SELECT first, total, offsets FROM postings WHERE user = ? ORDER BY first LIMIT 1", (user_id,)
            ).fetchone()
            if total > surplus:
                return gone
            db.execute("DELETE FROM postings WHERE user = ? AND first = ?", (user_id, first))
            gone += _unpack(packed)

    # Away

    def forget(self, db: sqlite3.Connection, user_id: str, head: int) -> set[int]:
        """Delete a user's lists on disk and return all offsets there were, in memory too (forgotten() lets those go).

        An empty chunk at the head stays, until retention by age takes it: it says that nothing up to there is left.
        """
        rows = db.execute("SELECT last, offsets FROM postings WHERE user = ? ORDER BY first", (user_id,)).fetchall()
        found = {offset for _, packed in rows for offset in _unpack(packed)}
        found.update(self._in_memory(user_id, rows[-1][0] if rows else 0))
        db.execute("DELETE FROM postings WHERE user = ?", (user_id,))
        db.execute("INSERT INTO postings VALUES (?, ?, ?, ?, 0, x'')", (user_id, head, head, head))
        return found

    def forgotten(self, user_id: str) -> None:
        """A user's lists have been deleted."""
        self._fresh_pairs -= len(self._fresh.pop(user_id, ()))
        self._moving.pop(user_id, None)

    def sweep(self, db: sqlite3.Connection, horizon: int) -> bool:
        """Delete chunks that end before the horizon, a part of the table at a time; return whether there is more of it."""
        chunks = db.execute(
            "SELECT user, first, last FROM postings WHERE user >= ? ORDER BY user, first LIMIT ?",
            (self._sweep_from or "", _SWEPT_AT_ONCE),
        ).fetchall()
        old = [(user, first) for user, first, last in chunks if last < horizon]
        db.executemany("DELETE FROM postings WHERE user = ? AND first = ?", old)
        if len(chunks) < _SWEPT_AT_ONCE:
            self._sweep_from = None
            return False
        # Begin again with this last user, unless one user alone filled all of it.
        last_user = chunks[-1][0]
        self._sweep_from = last_user if last_user != self._sweep_from else last_user + "\0"
        return True


def _pack(offsets: Sequence[int]) -> bytes:
    return array("q", offsets).tobytes()


def _unpack(packed: bytes) -> Sequence[int]:
    unpacked = array("q")
    unpacked.frombytes(packed)
    return unpacked
