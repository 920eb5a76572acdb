"""What the storage process does between requests: posting lists to the disk, retention, free pages.

Each step is a time slice of SLICE_S: an append that arrives during one waits that long.
"""

import sqlite3
import time
from collections import deque

from socket_server.inbox.inbox import IDEMPOTENCY_S, MAX_IDEMPOTENCY_KEYS, MICROSECONDS
from socket_server.inbox.sqlite.file import SqliteFile

SLICE_S = 0.002

# Posting-list pairs (user, offset) in memory, see Postings.weight, before they are written to disk. A restart reads them
# again: about 0.2 s for twice as many.
INDEX_AT = 400_000
# They are written after this time in any case.
INDEX_EVERY_S = 300.0

# Another process with the same file reads what this one stores within this time.
HANDOVER_S = 5

# How often retention by age is applied, and how often all posting lists are searched for it.
PURGE_EVERY_S = 1.0
SWEEP_EVERY_S = 3_600.0
_PURGE_ROWS = 200  # in one transaction

_VACUUM_PAGES = 200  # in one transaction
_MIN_FREE_PAGES = 2_048  # below it free pages stay in the file, for what comes next


class Maintenance:
    """The maintenance of one file."""

    def __init__(self, store: SqliteFile, *, index_at: int = INDEX_AT) -> None:
        self._store = store
        self._index_at = index_at
        self._moving_up_to = 0  # the head when the posting lists began to move to the disk
        self._moved: deque[tuple[int, int]] = deque()  # (time in microseconds, head) of each completed move
        self._next_index = time.monotonic() + INDEX_EVERY_S
        self._next_purge = self._next_sweep = 0.0

    def run_slice(self) -> bool:
        """Do a slice of what is due; return whether there is more. Raises InboxUnavailable; then it stays due."""
        now = time.monotonic()
        lists = self._store.postings
        if lists.moving or lists.weight >= (1 if now > self._next_index else self._index_at):
            self._index()
            self._next_index = now + INDEX_EVERY_S
            return True
        if now < self._next_purge:
            return False
        while lists.distribute_one() and time.monotonic() < now + SLICE_S:
            pass  # the rest follows next time: more may arrive than one slice distributes
        self._clear_pending()
        if self._store.erasing:
            self._store.erase_log()
        if self._purge() or self._sweep(now) or self._vacuum():
            return True
        self._next_purge = now + PURGE_EVERY_S
        return False

    def _index(self) -> None:
        """Write posting lists to the disk."""
        store = self._store
        with store.database.writing() as db:
            if not store.postings.moving:
                self._moving_up_to = store.head
                store.postings.begin_moving()
            users, gone = store.postings.move(db, SLICE_S)
            store.release(db, gone)
        store.postings.moved(users)
        if not store.postings.moving:
            self._moved.append((store.clock(), self._moving_up_to))

    def _clear_pending(self) -> None:
        """Delete from `pending` what the posting lists on disk have, except what an append may still have to return."""
        store = self._store
        while self._moved and abs(store.clock() - self._moved[0][0]) > HANDOVER_S * MICROSECONDS:
            up_to = min(self._moved[0][1], store.delivered)
            with store.database.writing() as db:
                db.execute("DELETE FROM pending WHERE offset <= ?", (up_to,))
            self._moved.popleft()

    def _purge(self) -> bool:
        """Delete notifications and idempotency keys whose time is over; return whether there may be more."""
        store = self._store
        now, ends = store.clock(), time.monotonic() + SLICE_S
        horizon = store.horizon(now)
        while time.monotonic() < ends:
            with store.database.reading() as db:
                old = db.execute(
                    "SELECT offset FROM notifications WHERE offset < ? LIMIT ?", (horizon, _PURGE_ROWS)
                ).fetchall()
                ended = db.execute(
                    "SELECT offset FROM notifications WHERE expires <= ? LIMIT ?", (now, _PURGE_ROWS)
                ).fetchall()
                keys = self._keys_to_drop(db, now)
            if not old and not ended and not keys:
                return False
            with store.database.writing() as db:
                store.store_head(db, store.head)
                if old:
                    store.store_purged(db, horizon)
                db.executemany("DELETE FROM notifications WHERE offset = ?", old + ended)
                db.executemany("DELETE FROM claims WHERE key = ?", keys)
            store.claims -= len(keys)
        return True

    def _keys_to_drop(self, db: sqlite3.Connection, now: int) -> list[tuple[str]]:
        """Return keys whose time is over, or else the oldest above MAX_IDEMPOTENCY_KEYS."""
        keys = db.execute(
            "SELECT key FROM claims WHERE offset <= ? LIMIT ?", (now - IDEMPOTENCY_S * MICROSECONDS, _PURGE_ROWS)
        ).fetchall()
        excess = min(self._store.claims - MAX_IDEMPOTENCY_KEYS, _PURGE_ROWS)
        if not keys and excess > 0:
            keys = db.execute("SELECT key FROM claims ORDER BY offset LIMIT ?", (excess,)).fetchall()
        return keys

    def _sweep(self, now: float) -> bool:
        """Apply retention by age to the posting lists on disk; return whether there is more."""
        if now < self._next_sweep:
            return False
        horizon = self._store.horizon(self._store.clock())
        with self._store.database.writing() as db:
            self._store.store_purged(db, horizon)
            if self._store.postings.sweep(db, horizon):
                return True
        self._next_sweep = now + min(SWEEP_EVERY_S, self._store.retention.ttl_s)
        return False

    def _vacuum(self) -> bool:
        """Return free pages to the file system if there are many; return whether some were."""
        db = self._store.database.ready()
        (free,) = db.execute("PRAGMA freelist_count").fetchone()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        if free <= max(_MIN_FREE_PAGES, pages // 4):
            return False
        with self._store.database.writing() as db:
            db.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
        return True
