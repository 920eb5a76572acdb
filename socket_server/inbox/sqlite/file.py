"""The inbox in one SQLite file, synchronous. It runs in a separate process (storage_process.py), because its calls block.

An entry is appended to two tables: its body, and its users until the posting lists have them.
"""

import math
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import orjson

from socket_server.inbox.inbox import (
    IDEMPOTENCY_S,
    MICROSECONDS,
    Appended,
    Claim,
    Clock,
    Entry,
    Page,
    Read,
    Record,
    Repeat,
    Retention,
    Stored,
    clock_us,
)
from socket_server.inbox.sqlite.database import Change, Database
from socket_server.inbox.sqlite.encoded_entry import EncodedEntry, decode_users, encode, encode_users
from socket_server.inbox.sqlite.postings import Postings

AMONG = "(SELECT value FROM json_each(?))"
_LIVING = f"FROM notifications WHERE offset IN {AMONG} AND (expires IS NULL OR expires > ?)"


class SqliteFile:
    """An Inbox in one SQLite file. For one thread. maintenance.py does what is not urgent."""

    def __init__(self, path: str, retention: Retention, clock: Clock = clock_us, *, synchronous: str = "NORMAL") -> None:
        """synchronous: SQLite's. NORMAL survives the end of any process; FULL also that of the machine, and costs a disk
        flush at each commit."""
        self.database = Database(path, synchronous, clock, self._load)
        self.retention = retention
        self.clock = clock
        self.postings = Postings(retention.max_per_user)
        self.head = 0
        self.delivered = 0  # the newest offset that the caller says it has delivered
        self.claims = 0  # idempotency keys in the file, approximately
        self.erasing = False  # deleted content is still in the write-ahead log
        self._began = 0
        self._purged = 0  # up to here retention by age has deleted, whatever the clock or the setting says now

    # The Inbox protocol

    @property
    def place(self) -> str:
        return self.database.path

    def open(self) -> int:
        self.database.ready()
        return self.head

    def append(self, entries: Sequence[Entry], after: int | None = None) -> Appended:
        return self.append_encoded([encode(entry) for entry in entries], after)

    def append_encoded(self, entries: Sequence[EncodedEntry], after: int | None = None) -> Appended:
        """append(), of entries whose users are encoded already."""
        outcomes: list[int | Repeat] = []
        kept: list[tuple[int, EncodedEntry]] = []
        with self.database.writing() as db:
            # The caller's offset may be ahead of a file that was replaced while the clock went back.
            now, head = self.clock(), max(self.head, after or 0)
            foreign = tuple(self._stored_after(db, after)) if after is not None and after < self.head else ()
            for entry in entries:
                repeat = self._first_use(db, entry.claim, now)
                if repeat is not None:
                    outcomes.append(repeat)
                    continue
                head = max(now, head + 1)
                outcomes.append(head)
                if entry.claim is not None:
                    self._store_claim(db, entry.claim, head)
                if entry.ttl_s != 0 and entry.count:
                    kept.append((head, entry))
            db.executemany(
                "INSERT INTO notifications (offset, refs, expires, body) VALUES (?, ?, ?, ?)",
                [(at, entry.count, self._expires(now, entry.ttl_s), entry.notification) for at, entry in kept],
            )
            db.executemany("INSERT INTO pending (offset, users) VALUES (?, ?)", [(at, entry.users) for at, entry in kept])
            if not kept or kept[-1][0] < head:
                self.store_head(db, head)
        self.head, self.delivered = head, head if after is None else after
        for at, entry in kept:
            self.postings.add(at, entry.users, entry.count)
        return Appended(tuple(outcomes), foreign)

    def amend(self, key: str, answer: bytes) -> None:
        with self.database.writing() as db:
            db.execute("UPDATE claims SET answer = ? WHERE key = ?", (answer, key))

    def since(self, user_id: str, after: int, until: int | None, limit: int, max_bytes: int) -> Page:
        return self.since_each([Read(user_id, after, until, limit, max_bytes)])[0]

    def since_each(self, reads: Sequence[Read], seconds: float = math.inf) -> tuple[Page, ...]:
        """Answer reads in their order, in one transaction, for about this time; at least the first."""
        ends = time.monotonic() + seconds
        pages: list[Page] = []
        with self.database.reading() as db:
            for read in reads:
                pages.append(self._page(db, read))
                if time.monotonic() > ends:
                    break
        return tuple(pages)

    def forget(self, user_id: str) -> int:
        count = self.since(user_id, 0, None, 0, 0).total
        with self.database.writing() as db:
            offsets = self.postings.forget(db, user_id, self.head)
            self.release(db, Counter(offsets))
            self._remove_from_pending(db, user_id, offsets)
        self.postings.forgotten(user_id)
        self.erase_log()
        return count

    def check(self) -> None:
        with self.database.writing() as db:
            # A different value each time: SQLite does not write a row that does not change.
            db.execute(
                "INSERT INTO meta VALUES ('checks', 1) ON CONFLICT (name) DO UPDATE SET value = (value + 1) & 0xFFFFFFFF"
            )

    def close(self) -> None:
        self.database.close()

    # Shared with maintenance.py

    def horizon(self, now: int) -> int:
        """Return the offset before which retention by age keeps nothing."""
        return now - round(self.retention.ttl_s * MICROSECONDS)

    def store_head(self, db: sqlite3.Connection, head: int) -> None:
        """Store the head by itself: offsets of what was not kept, or is deleted, must not be given again."""
        db.execute("UPDATE meta SET value = ? WHERE name = 'head'", (head,))

    def store_purged(self, db: sqlite3.Connection, horizon: int) -> None:
        """Store that retention by age has deleted up to this offset."""
        db.execute(
            "INSERT INTO meta VALUES ('purged', ?) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
            (horizon,),
        )
        self._purged = max(self._purged, horizon)

    def release(self, db: sqlite3.Connection, gone: "Counter[int]") -> None:
        """Take notifications off lists (offset -> number of lists), and delete those that are on none."""
        if gone:
            self.store_head(db, self.head)
            db.executemany(
                "UPDATE notifications SET refs = refs - ? WHERE offset = ?", [(times, each) for each, times in gone.items()]
            )
            db.executemany("DELETE FROM notifications WHERE offset = ? AND refs <= 0", [(each,) for each in gone])

    def erase_log(self) -> None:
        """Empty the write-ahead log, which still contains what was deleted. Sets `erasing` if another program reads it."""
        try:
            (busy, _, _) = self.database.ready().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            raise self.database.unavailable(error) from None
        self.erasing = bool(busy)

    # The content

    def _load(self, db: sqlite3.Connection, change: Change) -> None:
        """Read from the file what is not in memory."""
        lost_up_to = self.head if change is Change.REPLACED else 0
        if change is not Change.COMMITTED:
            (self._began,) = db.execute("SELECT value FROM meta WHERE name = 'began'").fetchone()
            self.postings = Postings(self.retention.max_per_user)
            self.head = 0
        pending = db.execute("SELECT offset, users FROM pending WHERE offset > ? ORDER BY offset", (self.head,))
        for offset, users in pending:
            self.postings.add_decoded(offset, decode_users(users))
        (stored,) = db.execute("SELECT value FROM meta WHERE name = 'head'").fetchone()
        (self._purged,) = db.execute("SELECT coalesce(max(value), 0) FROM meta WHERE name = 'purged'").fetchone()
        (newest,) = db.execute("SELECT max(offset) FROM notifications").fetchone()
        (self.claims,) = db.execute("SELECT count(*) FROM claims").fetchone()
        self.head = max(self.head, self._began, stored, newest or 0)
        self._began = max(self._began, lost_up_to)

    def _page(self, db: sqlite3.Connection, read: Read) -> Page:
        offsets, dropped = self.postings.of(db, read.user_id, read.after)
        now = self.clock()
        horizon = self.horizon(now)
        complete = max(self._began, self._purged, horizon, dropped) <= read.after <= self.head
        first, last = max(read.after + 1, horizon), self.head if read.until is None else read.until
        wanted = orjson.dumps([each for each in offsets if first <= each <= last]).decode()
        found: list[Stored] = []
        size = 0
        # Row by row: of the bodies beyond the page only the first is read.
        for offset, body in db.execute(f"SELECT offset, body {_LIVING} ORDER BY offset", (wanted, now)):
            size += len(body)
            if len(found) == read.limit or (found and size > read.max_bytes):
                (total,) = db.execute(f"SELECT count(*) {_LIVING}", (wanted, now)).fetchone()
                return Page(tuple(found), total, complete)
            found.append(Stored(offset, body))
        return Page(tuple(found), len(found), complete)

    def _expires(self, now: int, ttl_s: float | None) -> int | None:
        if ttl_s is None or ttl_s >= self.retention.ttl_s:
            return None
        return now + round(ttl_s * MICROSECONDS)

    def _first_use(self, db: sqlite3.Connection, claim: Claim | None, now: int) -> Repeat | None:
        """Return the first use of an idempotency key; None if the key is new."""
        if claim is None:
            return None
        row = db.execute(
            "SELECT offset, digest, answer FROM claims WHERE key IN (?, ?) AND offset > ?",
            (claim.key, claim.former_key, now - IDEMPOTENCY_S * MICROSECONDS),
        ).fetchone()
        return None if row is None else Repeat(*row)

    def _store_claim(self, db: sqlite3.Connection, claim: Claim, offset: int) -> None:
        db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)", (claim.key, offset, claim.digest, claim.answer))
        self.claims += 1

    def _stored_after(self, db: sqlite3.Connection, after: int) -> Iterator[Record]:
        for offset, users, body in db.execute(
            "SELECT offset, users, body FROM pending JOIN notifications USING (offset) WHERE offset > ? ORDER BY offset",
            (after,),
        ):
            yield Record(offset, decode_users(users), body)

    def _remove_from_pending(self, db: sqlite3.Connection, user_id: str, offsets: Iterable[int]) -> None:
        found = db.execute(
            f"SELECT offset, users FROM pending WHERE offset IN {AMONG}",  # noqa: S608 - a constant
            (orjson.dumps(sorted(offsets)).decode(),),
        ).fetchall()
        rest = [(encode_users([each for each in decode_users(users) if each != user_id]), at) for at, users in found]
        db.executemany("UPDATE pending SET users = ? WHERE offset = ?", rest)
