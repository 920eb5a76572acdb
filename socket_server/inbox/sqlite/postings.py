"""Posting lists: the offsets of each user's notifications. Part of the SQLite store; the caller owns the transaction.

New pairs (user, offset) are collected in memory; a restart reads them from the table `pending`. When there are enough
they are written to the table `postings`, a slice of users at a time, as chunks of packed offsets. A broadcast to 1,000
users therefore touches no 1,000 pages: measured, a row for each user and notification cost more than writing to that
user's socket.

Distributing an offset to the lists of 1,000 users costs more than the rest of storing. So an audience stays whole, with its
offsets, until a user is read, a second has passed, or there are many. Audiences that repeat are distributed once.
"""

import sqlite3
import time
from array import array
from collections import Counter
from collections.abc import Sequence

from socket_server.inbox.sqlite.encoded_entry import decode_users

# Offsets in a user's newest chunk before the next chunk begins: few rows, and small ones to rewrite.
CHUNK = 64
USER_WEIGHT = 8  # in pairs: what a user costs beside its pairs, in memory and on the way to the disk
# Users of all audiences that are not distributed. Distributing them takes the next read about 4 ms.
_MAX_UNDISTRIBUTED = 10_000
_USERS_PER_CLOCK_READ = 32
_SWEEP_ROWS = 500

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
        self._fresh: dict[str, list[int]] = {}  # user -> offsets, unordered; in memory only
        self._undistributed: dict[bytes, list[int]] = {}  # encoded audience -> offsets
        self._undistributed_users = 0
        self._moving: dict[str, list[int]] = {}  # user -> offsets, being written to the disk
        self._order: list[str] = []  # of the users in _moving, the next one last
        self._sweep_from: str | None = None

    @property
    def weight(self) -> int:
        """The size of what is in memory, in pairs; each user with a list counts USER_WEIGHT more."""
        return self._fresh_pairs + USER_WEIGHT * len(self._fresh)

    @property
    def moving(self) -> bool:
        """Whether some are being written to the disk."""
        return bool(self._moving)

    def add(self, offset: int, users: bytes, count: int) -> None:
        """Add a notification for an encoded audience of `count` users."""
        self._fresh_pairs += count
        offsets = self._undistributed.get(users)
        if offsets is not None:
            offsets.append(offset)
            return
        self._undistributed[users] = [offset]
        self._undistributed_users += count
        while self._undistributed_users > _MAX_UNDISTRIBUTED:
            self.distribute_one()

    def add_decoded(self, offset: int, user_ids: Sequence[str]) -> None:
        """add(), distributed at once, so that no read has to wait for it."""
        self._fresh_pairs += len(user_ids)
        self._distribute([offset], user_ids)

    def distribute_one(self) -> bool:
        """Distribute the oldest audience to the lists of its users; return whether there was one."""
        if not self._undistributed:
            return False
        users = next(iter(self._undistributed))
        offsets = self._undistributed.pop(users)
        user_ids = decode_users(users)
        self._undistributed_users -= len(user_ids)
        self._distribute(offsets, user_ids)
        return True

    def _distribute_all(self) -> None:
        while self._undistributed:
            self.distribute_one()

    def _distribute(self, offsets: list[int], user_ids: Sequence[str]) -> None:
        fresh = self._fresh
        for user_id in user_ids:
            try:
                fresh[user_id].extend(offsets)
            except KeyError:
                fresh[user_id] = offsets[:]

    def of(self, db: sqlite3.Connection, user_id: str, after: int) -> tuple[list[int], int]:
        """Return the offsets that retention by count leaves a user, ascending, and the newest dropped one (0: none).

        Offsets up to `after` may be missing, and drops before it are not looked for.
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
        """Return a user's offsets that are not on disk, ascending.

        indexed: the last one on disk; after a crash some are in memory too.
        """
        self._distribute_all()
        both = (self._moving.get(user_id, ()), self._fresh.get(user_id, ()))
        return sorted(offset for offsets in both for offset in offsets if offset > indexed)

    # To the disk

    def begin_moving(self) -> None:
        """Start writing what is in memory now to the disk."""
        self._distribute_all()
        self._moving, self._fresh, self._fresh_pairs = self._fresh, {}, 0
        # In the order of the table, whose neighbors share pages.
        self._order = sorted(self._moving, reverse=True)

    def move(self, db: sqlite3.Connection, seconds: float) -> tuple[list[str], Counter[int]]:
        """Write lists to the disk for about this time; return their users, and offset -> number of lists that dropped it.

        After the commit call moved(), which releases them from memory.
        """
        ends = time.monotonic() + seconds
        done: list[str] = []
        gone: Counter[int] = Counter()
        while len(done) < len(self._order) and time.monotonic() < ends:
            for user_id in self._order[-len(done) - 1 : -len(done) - 1 - _USERS_PER_CLOCK_READ : -1]:
                done.append(user_id)
                if user_id in self._moving:
                    gone.update(self._write(db, user_id, self._moving[user_id]))
        return done, gone

    def moved(self, user_ids: Sequence[str]) -> None:
        """Release the lists of these users, which are on the disk."""
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
        """Delete a user's oldest chunks, of at most the first `surplus` offsets; return the deleted offsets."""
        gone: list[int] = []
        while True:
            first, total, packed = db.execute(
                "SELECT first, total, offsets FROM postings WHERE user = ? ORDER BY first LIMIT 1", (user_id,)
            ).fetchone()
            if total > surplus:
                return gone
            db.execute("DELETE FROM postings WHERE user = ? AND first = ?", (user_id, first))
            gone += _unpack(packed)

    # Deletion

    def forget(self, db: sqlite3.Connection, user_id: str, head: int) -> set[int]:
        """Delete a user's lists on disk; return all offsets, those in memory too. After the commit call forgotten().

        An empty chunk at the head stays until retention by age: it says that nothing up to there is left.
        """
        rows = db.execute("SELECT last, offsets FROM postings WHERE user = ? ORDER BY first", (user_id,)).fetchall()
        found = {offset for _, packed in rows for offset in _unpack(packed)}
        found.update(self._in_memory(user_id, rows[-1][0] if rows else 0))
        db.execute("DELETE FROM postings WHERE user = ?", (user_id,))
        db.execute("INSERT INTO postings VALUES (?, ?, ?, ?, 0, x'')", (user_id, head, head, head))
        return found

    def forgotten(self, user_id: str) -> None:
        """Release a user's lists from memory."""
        self._fresh_pairs -= len(self._fresh.pop(user_id, ()))
        self._moving.pop(user_id, None)

    def sweep(self, db: sqlite3.Connection, horizon: int) -> bool:
        """Delete chunks that end before the horizon, in a part of the table; return whether there is more of the table."""
        chunks = db.execute(
            "SELECT user, first, last FROM postings WHERE user >= ? ORDER BY user, first LIMIT ?",
            (self._sweep_from or "", _SWEEP_ROWS),
        ).fetchall()
        old = [(user, first) for user, first, last in chunks if last < horizon]
        db.executemany("DELETE FROM postings WHERE user = ? AND first = ?", old)
        if len(chunks) < _SWEEP_ROWS:
            self._sweep_from = None
            return False
        # Continue with the last user, unless this part was that user's alone.
        last_user = chunks[-1][0]
        self._sweep_from = last_user if last_user != self._sweep_from else last_user + "\0"
        return True


def _pack(offsets: Sequence[int]) -> bytes:
    return array("q", offsets).tobytes()


def _unpack(packed: bytes) -> Sequence[int]:
    unpacked = array("q")
    unpacked.frombytes(packed)
    return unpacked
