"""The SQLite store: one file, synchronous; it belongs in a process of its own (keeper.py), where it blocks nobody.

An entry is appended at the end of two tables: its body, and its list of users until the posting lists have that. Several
processes may have the file open for a while (a reload; a server killed and started at once): every transaction looks for
what others have committed.
"""

import contextlib
import math
import os
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import orjson

from socket_server import log
from socket_server.inbox.inbox import (
    IDEMPOTENCY_S,
    MAX_IDEMPOTENCY_KEYS,
    MICROSECONDS,
    Appended,
    Claim,
    Clock,
    Entry,
    InboxUnavailable,
    Page,
    Read,
    Record,
    Repeat,
    Retention,
    Stored,
    clock_us,
)
from socket_server.inbox.sqlite import ownership, postings
from socket_server.inbox.sqlite.encoded_entry import EncodedEntry, pack, pack_users, unpack_users
from socket_server.inbox.sqlite.postings import Postings

_log = log.logger("Server")

FORMAT = 1  # of the file; kept in SQLite's user_version

# So many pairs of user and offset (see Postings.weight) come together in memory before they go to the lists on disk.
# A restart reads them again: about 0.2 s for twice as many.
INDEX_AT = 400_000
# How long one slice of maintenance may take: an append that arrives meanwhile waits so long.
SLICE_S = 0.002
# They go there after so long in any case.
INDEX_EVERY_S = 300.0
# Another process on the same file looks for what this one stores within so long.
HANDOVER_S = 5
# How often retention by age is looked after, and how often all posting lists are looked through for it.
PURGE_EVERY_S = 1.0
SWEEP_EVERY_S = 3_600.0
_PURGED_AT_ONCE = 200
# As long another program's lock is waited for, in each of the few operations that may come one after the other before a
# caller is answered.
_BUSY_S = 1.0
_VACUUMED_AT_ONCE = 200  # pages
_FEW_FREE_PAGES = 2_048

_SCHEMA = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    # refs: on how many users' lists it is; expires: when its own ttl ends it, where that is before retention does.
    "CREATE TABLE notifications (offset INTEGER PRIMARY KEY, refs INTEGER NOT NULL, expires INTEGER, body BLOB NOT NULL)",
    "CREATE INDEX expiring ON notifications (expires) WHERE expires IS NOT NULL",
    # users: of a notification that may be in no posting list yet, or not delivered; a MessagePack array.
    "CREATE TABLE pending (offset INTEGER PRIMARY KEY, users BLOB NOT NULL)",
    postings.SCHEMA,
    "CREATE TABLE claims (key TEXT PRIMARY KEY, offset INTEGER NOT NULL, digest BLOB NOT NULL, answer BLOB NOT NULL)"
    " WITHOUT ROWID",
    "CREATE INDEX claimed ON claims (offset)",
)
_AMONG = "(SELECT value FROM json_each(?))"
_LIVING = f"FROM notifications WHERE offset IN {_AMONG} AND (expires IS NULL OR expires > ?)"


class SqliteFile:
    """An Inbox in one SQLite file. For one thread."""

    def __init__(
        self,
        path: str,
        retention: Retention,
        clock: Clock = clock_us,
        *,
        synchronous: str = "NORMAL",
        index_at: int = INDEX_AT,
    ) -> None:
        """synchronous: SQLite's. NORMAL survives the end of any process at any moment, FULL that of the machine as well,
        for a disk flush at every commit."""
        self._path = os.path.abspath(path)
        self._retention = retention
        self._clock = clock
        self._synchronous = synchronous
        self._index_at = index_at
        self._db: sqlite3.Connection | None = None
        self._file = (0, 0)  # device and inode
        self._began = 0
        self._purged = 0  # the horizon when retention by age last deleted something: no clock or setting brings it back
        self._head = 0
        self._claims = 0  # idempotency keys in the file, approximately
        self._postings = Postings(retention.max_per_user)
        self._erasing = False  # something that was forgotten is still in the write-ahead file
        self._delivered = 0  # up to where the caller has delivered, by its own account
        self._seen_version = 0  # of the data; another number when another process has committed
        self._moving_up_to = 0  # the head when the posting lists began to move to the disk
        self._moved: deque[tuple[int, int]] = deque()  # when they had moved, and up to where
        self._next_index = time.monotonic() + INDEX_EVERY_S
        self._next_purge = self._next_sweep = 0.0

    # The Inbox protocol

    @property
    def place(self) -> str:
        return self._path

    def open(self) -> int:
        self._ready()
        return self._head

    def append(self, entries: Sequence[Entry], after: int | None = None) -> Appended:
        return self.append_encoded([pack(entry) for entry in entries], after)

    def append_encoded(self, entries: Sequence[EncodedEntry], after: int | None = None) -> Appended:
        """append(), of entries whose users have been packed elsewhere."""
        outcomes: list[int | Repeat] = []
        kept: list[tuple[int, EncodedEntry]] = []
        with self._writing() as db:
            # What the caller has delivered may be ahead of a file that was replaced while the clock went back.
            now, head = self._clock(), max(self._head, after or 0)
            others = tuple(self._stored_after(db, after)) if after is not None and after < self._head else ()
            for entry in entries:
                repeat = self._claimed(db, entry.claim, now)
                if repeat is not None:
                    outcomes.append(repeat)
                    continue
                head = max(now, head + 1)
                outcomes.append(head)
                if entry.claim is not None:
                    self._claim(db, entry.claim, head)
                if entry.ttl_s != 0 and entry.count:
                    kept.append((head, entry))
            db.executemany(
                "INSERT INTO notifications (offset, refs, expires, body) VALUES (?, ?, ?, ?)",
                [(at, entry.count, self._expires(now, entry.ttl_s), entry.notification) for at, entry in kept],
            )
            db.executemany("INSERT INTO pending (offset, users) VALUES (?, ?)", [(at, entry.users) for at, entry in kept])
            if not kept or kept[-1][0] < head:
                self._note_head(db, head)
        self._head, self._delivered = head, head if after is None else after
        for at, entry in kept:
            self._postings.add(at, entry.users, entry.count)
        return Appended(tuple(outcomes), others)

    def amend(self, key: str, answer: bytes) -> None:
        with self._writing() as db:
            db.execute("UPDATE claims SET answer = ? WHERE key = ?", (answer, key))

    def since(self, user_id: str, after: int, until: int | None, limit: int, max_bytes: int) -> Page:
        return self.since_each([Read(user_id, after, until, limit, max_bytes)])[0]

    def since_each(self, reads: Sequence[Read], seconds: float = math.inf) -> tuple[Page, ...]:
        """Answer reads in their order, in one transaction, for about so long: the first in any case."""
        ends = time.monotonic() + seconds
        pages: list[Page] = []
        with self._reading() as db:
            for read in reads:
                pages.append(self._page(db, *read))
                if time.monotonic() > ends:
                    break
        return tuple(pages)

    def _page(
        self, db: sqlite3.Connection, user_id: str, after: int, until: int | None, limit: int, max_bytes: int
    ) -> Page:
        offsets, dropped = self._postings.of(db, user_id, after)
        now = self._clock()
        horizon = self._horizon(now)
        complete = max(self._began, self._purged, horizon, dropped) <= after <= self._head
        first, last = max(after + 1, horizon), self._head if until is None else until
        wanted = orjson.dumps([each for each in offsets if first <= each <= last]).decode()
        found: list[Stored] = []
        size = 0
        # Row by row: of the bodies beyond the page only the first is read.
        for offset, body in db.execute(f"SELECT offset, body {_LIVING} ORDER BY offset", (wanted, now)):
            size += len(body)
            if len(found) == limit or (found and size > max_bytes):
                (total,) = db.execute(f"SELECT count(*) {_LIVING}", (wanted, now)).fetchone()
                return Page(tuple(found), total, complete)
            found.append(Stored(offset, body))
        return Page(tuple(found), len(found), complete)

    def forget(self, user_id: str) -> int:
        kept = self.since(user_id, 0, None, 0, 0).total
        with self._writing() as db:
            offsets = self._postings.forget(db, user_id, self._head)
            self._unref(db, Counter(offsets))
            self._strike_out(db, user_id, offsets)
        self._postings.forgotten(user_id)
        self._erase_wal()
        return kept

    def _erase_wal(self) -> None:
        """Empty the write-ahead file, which still has what was deleted; again later where another program reads it now."""
        try:
            (busy, _, _) = self._ready().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            raise self._unavailable(error) from None
        self._erasing = bool(busy)

    def check(self) -> None:
        with self._writing() as db:
            # Another value each time: SQLite does not write a row that stays as it is.
            db.execute(
                "INSERT INTO meta VALUES ('checks', 1) ON CONFLICT (name) DO UPDATE SET value = (value + 1) & 0xFFFFFFFF"
            )

    def close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    # The file

    def _ready(self) -> sqlite3.Connection:
        """Return the open database. Raises InboxUnavailable."""
        lost = 0  # up to here another file has it
        if self._db is not None:
            if self._is_the_same_file():
                return self._db
            lost = self._head
            _log.warning("the inbox %s was removed or replaced; it goes on with what is there now", self._path)
        self.close()
        try:
            self._db = self._open()
        except _FAILURES as error:
            raise self._unavailable(error) from None
        self._began = max(self._began, lost)
        return self._db

    def _is_the_same_file(self) -> bool:
        """Whether the path still names what is open: what is written to a removed file is lost."""
        try:
            found = os.stat(self._path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._file

    def _open(self) -> sqlite3.Connection:
        Path(self._path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        secured = ownership.secure(self._path)
        db = sqlite3.connect(self._path, isolation_level=None, timeout=_BUSY_S)
        try:
            self._set_up(db)
        except BaseException:
            db.close()
            raise
        found = os.stat(self._path)
        self._file = (found.st_dev, found.st_ino)
        if self._file != secured:
            db.close()
            raise InboxUnavailable(f"the inbox {self._path} was replaced while it was opened: try again")
        return db

    def _set_up(self, db: sqlite3.Connection) -> None:
        self._is_new(db)  # before anything is changed: it may be another program's
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file; before anything is in it
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise InboxUnavailable(f"the inbox {self._path}: its file system cannot hold SQLite's WAL; use a local disk")
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.execute("PRAGMA cache_size = -32768")  # 32 MB
        db.execute("PRAGMA journal_size_limit = 67108864")
        db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten, wherever it has been moved before
        db.execute("BEGIN IMMEDIATE")
        if self._is_new(db):
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute("INSERT INTO meta VALUES ('began', ?), ('head', 0)", (self._clock(),))
        (self._began,) = db.execute("SELECT value FROM meta WHERE name = 'began'").fetchone()
        self._postings = Postings(self._retention.max_per_user)
        self._head = 0
        self._take_in(db)
        db.execute("COMMIT")

    def _is_new(self, db: sqlite3.Connection) -> bool:
        """Return whether the file is still empty. Raises InboxUnavailable where it is no inbox of this format."""
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if version != FORMAT and (version or tables):
            raise InboxUnavailable(
                f"the inbox {self._path} has format {version} and this server's is {FORMAT}: name another file in INBOX_URL"
            )
        return not version

    def _take_in(self, db: sqlite3.Connection) -> None:
        """Take in what is in the file beyond the head."""
        (version,) = db.execute("PRAGMA data_version").fetchone()
        pending = db.execute("SELECT offset, users FROM pending WHERE offset > ? ORDER BY offset", (self._head,))
        for offset, users in pending:
            self._postings.add_dealt(offset, unpack_users(users))
        (noted,) = db.execute("SELECT value FROM meta WHERE name = 'head'").fetchone()
        (self._purged,) = db.execute("SELECT coalesce(max(value), 0) FROM meta WHERE name = 'purged'").fetchone()
        (newest,) = db.execute("SELECT max(offset) FROM notifications").fetchone()
        (self._claims,) = db.execute("SELECT count(*) FROM claims").fetchone()
        self._head = max(self._head, self._began, noted, newest or 0)
        self._seen_version = version

    def _unavailable(self, error: Exception) -> InboxUnavailable:
        return InboxUnavailable(f"the inbox {self._path}: {_explain(error)}")

    # Transactions

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        db = self._ready()
        try:
            db.execute(begin)
            (version,) = db.execute("PRAGMA data_version").fetchone()
            if version != self._seen_version:
                self._take_in(db)
            yield db
            db.execute("COMMIT")
        except BaseException as error:
            if _primary_code(error) in _WITHOUT_A_TRACE and db.in_transaction:
                db.execute("ROLLBACK")  # reading goes on
            elif _primary_code(error) not in _WITHOUT_A_TRACE:
                # What is in memory may not be what is in the file: begin again from there.
                self.close()
            if isinstance(error, _FAILURES):
                raise self._unavailable(error) from None
            raise

    def _reading(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self._transaction("BEGIN")

    def _writing(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self._transaction("BEGIN IMMEDIATE")

    # Entries

    def _horizon(self, now: int) -> int:
        """Return the offset before which retention by age keeps nothing."""
        return now - round(self._retention.ttl_s * MICROSECONDS)

    def _expires(self, now: int, ttl_s: float | None) -> int | None:
        if ttl_s is None or ttl_s >= self._retention.ttl_s:
            return None
        return now + round(ttl_s * MICROSECONDS)

    def _claimed(self, db: sqlite3.Connection, claim: Claim | None, now: int) -> Repeat | None:
        if claim is None:
            return None
        row = db.execute(
            "SELECT offset, digest, answer FROM claims WHERE key IN (?, ?) AND offset > ?",
            (claim.key, claim.former_key, now - IDEMPOTENCY_S * MICROSECONDS),
        ).fetchone()
        return None if row is None else Repeat(*row)

    def _claim(self, db: sqlite3.Connection, claim: Claim, offset: int) -> None:
        db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?)", (claim.key, offset, claim.digest, claim.answer))
        self._claims += 1

    def _stored_after(self, db: sqlite3.Connection, after: int) -> Iterator[Record]:
        for offset, users, body in db.execute(
            "SELECT offset, users, body FROM pending JOIN notifications USING (offset) WHERE offset > ? ORDER BY offset",
            (after,),
        ):
            yield Record(offset, unpack_users(users), body)

    def _strike_out(self, db: sqlite3.Connection, user_id: str, offsets: Iterable[int]) -> None:
        """Take a user out of the lists in `pending`."""
        found = db.execute(
            f"SELECT offset, users FROM pending WHERE offset IN {_AMONG}",  # noqa: S608 - a constant
            (orjson.dumps(sorted(offsets)).decode(),),
        ).fetchall()
        db.executemany(
            "UPDATE pending SET users = ? WHERE offset = ?",
            [(pack_users([each for each in unpack_users(users) if each != user_id]), offset) for offset, users in found],
        )

    def _note_head(self, db: sqlite3.Connection, head: int) -> None:
        """Keep the head apart: the offset of what was never kept, or is deleted, must not come again."""
        db.execute("UPDATE meta SET value = ? WHERE name = 'head'", (head,))

    def _note_purged(self, db: sqlite3.Connection, horizon: int) -> None:
        db.execute(
            "INSERT INTO meta VALUES ('purged', ?) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
            (horizon,),
        )
        self._purged = max(self._purged, horizon)

    def _unref(self, db: sqlite3.Connection, gone: "Counter[int]") -> None:
        """Take notifications off so many lists each; what is on none any more is deleted."""
        if gone:
            self._note_head(db, self._head)
            db.executemany(
                "UPDATE notifications SET refs = refs - ? WHERE offset = ?", [(times, each) for each, times in gone.items()]
            )
            db.executemany("DELETE FROM notifications WHERE offset = ? AND refs <= 0", [(each,) for each in gone])

    # Maintenance

    def maintain(self) -> bool:
        """Do a slice of what is due; return whether more is. Raises InboxUnavailable, and it stays due."""
        now = time.monotonic()
        lists = self._postings
        if lists.moving or lists.weight >= (1 if now > self._next_index else self._index_at):
            self._index_slice()
            self._next_index = now + INDEX_EVERY_S
            return True
        if now < self._next_purge:
            return False
        while lists.deal_one() and time.monotonic() < now + SLICE_S:
            pass  # what is left waits for the next time: more may come than is dealt in a slice
        self._unpend_slice()
        if self._erasing:
            self._erase_wal()
        if self._purge_slice() or self._sweep_slice(now) or self._vacuum_slice():
            return True
        self._next_purge = now + PURGE_EVERY_S
        return False

    def _index_slice(self) -> None:
        with self._writing() as db:
            if not self._postings.moving:
                self._moving_up_to = self._head
                self._postings.begin_moving()
            users, gone = self._postings.move(db, SLICE_S)
            self._unref(db, gone)
        self._postings.moved(users)
        if not self._postings.moving:
            self._moved.append((self._clock(), self._moving_up_to))

    def _unpend_slice(self) -> None:
        """Delete from `pending` what the posting lists have, but for what an append may still have to hand out."""
        while self._moved and abs(self._clock() - self._moved[0][0]) > HANDOVER_S * MICROSECONDS:
            up_to = min(self._moved[0][1], self._delivered)
            with self._writing() as db:
                db.execute("DELETE FROM pending WHERE offset <= ?", (up_to,))
            self._moved.popleft()

    def _purge_slice(self) -> bool:
        """Delete notifications and claims whose time is over; return whether there may be more."""
        now, ends = self._clock(), time.monotonic() + SLICE_S
        while time.monotonic() < ends:
            with self._reading() as db:
                old = db.execute(
                    "SELECT offset FROM notifications WHERE offset < ? LIMIT ?", (self._horizon(now), _PURGED_AT_ONCE)
                ).fetchall()
                ended = db.execute(
                    "SELECT offset FROM notifications WHERE expires <= ? LIMIT ?", (now, _PURGED_AT_ONCE)
                ).fetchall()
                keys = self._claims_to_drop(db, now)
            if not old and not ended and not keys:
                return False
            with self._writing() as db:
                self._note_head(db, self._head)
                if old:
                    self._note_purged(db, self._horizon(now))
                db.executemany("DELETE FROM notifications WHERE offset = ?", old + ended)
                db.executemany("DELETE FROM claims WHERE key = ?", keys)
            self._claims -= len(keys)
        return True

    def _claims_to_drop(self, db: sqlite3.Connection, now: int) -> list[tuple[str]]:
        """Return keys whose time is over, and the oldest above MAX_IDEMPOTENCY_KEYS."""
        keys = db.execute(
            "SELECT key FROM claims WHERE offset <= ? LIMIT ?", (now - IDEMPOTENCY_S * MICROSECONDS, _PURGED_AT_ONCE)
        ).fetchall()
        excess = min(self._claims - MAX_IDEMPOTENCY_KEYS, _PURGED_AT_ONCE)
        if not keys and excess > 0:
            keys = db.execute("SELECT key FROM claims ORDER BY offset LIMIT ?", (excess,)).fetchall()
        return keys

    def _sweep_slice(self, now: float) -> bool:
        if now < self._next_sweep:
            return False
        horizon = self._horizon(self._clock())
        with self._writing() as db:
            self._note_purged(db, horizon)
            if self._postings.sweep(db, horizon):
                return True
        self._next_sweep = now + min(SWEEP_EVERY_S, self._retention.ttl_s)
        return False

    def _vacuum_slice(self) -> bool:
        """Give some free pages back to the file system, where there are many."""
        db = self._ready()
        (free,) = db.execute("PRAGMA freelist_count").fetchone()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        if free <= max(_FEW_FREE_PAGES, pages // 4):
            return False
        with self._writing() as db:
            db.execute(f"PRAGMA incremental_vacuum({_VACUUMED_AT_ONCE})").fetchall()
        return True


_FAILURES = (sqlite3.Error, OSError, msgspec.DecodeError)

# What fails with these has changed nothing, in the file or in memory.
_WITHOUT_A_TRACE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _primary_code(error: BaseException) -> int:
    """Return SQLite's error code; an extended one carries it in its low byte."""
    if isinstance(error, msgspec.DecodeError):
        return sqlite3.SQLITE_CORRUPT
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


def _explain(error: Exception) -> str:
    """Return what is wrong and what to do about it."""
    if isinstance(error, OSError):
        return f"{error.strerror or error}; the directory must be there and writable for this server"
    match _primary_code(error):
        case sqlite3.SQLITE_FULL:
            return "the disk is full; make room"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "another program keeps it locked; end that program"
        case sqlite3.SQLITE_READONLY:
            return "it cannot be written; make the file and its directory writable for this server"
        case sqlite3.SQLITE_CANTOPEN:
            return "it cannot be opened; its directory must be there and writable for this server"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return "the file is corrupt; restore it, or move it (with its -wal and -shm files) away to begin anew"
        case sqlite3.SQLITE_IOERR:
            return f"the disk does not read or write ({error}); it may be full, or the system's log says more"
    return str(error)
