"""The SQLite database of an inbox: its format, opening it, transactions, and what its errors mean."""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

import msgspec

from socket_server import log
from socket_server.inbox.inbox import InboxUnavailable
from socket_server.inbox.sqlite import ownership, postings

_log = log.logger("Server")

FORMAT = 1  # of the file; stored as SQLite's user_version

# How long an operation waits for another program's lock. A caller may wait for a few operations one after the other.
_BUSY_S = 1.0

_SCHEMA = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    # refs: the number of users' lists it is on; expires: the end of its own ttl, if that is before retention's.
    "CREATE TABLE notifications (offset INTEGER PRIMARY KEY, refs INTEGER NOT NULL, expires INTEGER, body BLOB NOT NULL)",
    "CREATE INDEX expiring ON notifications (expires) WHERE expires IS NOT NULL",
    # The users (a MessagePack array) of notifications that may not be in the posting lists yet, or not delivered.
    "CREATE TABLE pending (offset INTEGER PRIMARY KEY, users BLOB NOT NULL)",
    postings.SCHEMA,
    "CREATE TABLE claims (key TEXT PRIMARY KEY, offset INTEGER NOT NULL, digest BLOB NOT NULL, answer BLOB NOT NULL)"
    " WITHOUT ROWID",
    "CREATE INDEX claimed ON claims (offset)",
)

_FAILURES = (sqlite3.Error, OSError, msgspec.DecodeError)

# These errors have changed nothing, neither in the file nor in memory.
_HARMLESS = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Change(Enum):
    """What has changed about the content of the file, so that it must be loaded."""

    OPENED = "opened"
    REPLACED = "replaced"  # by another file, while it was open
    COMMITTED = "committed"  # by another process


class Database:
    """A connection to the file, reopened after a failure or if the file was replaced. For one thread.

    Several processes may have the file open for a while (a reload; a server killed and started at once): each transaction
    looks for what others have committed.
    """

    def __init__(
        self,
        path: str,
        synchronous: str,
        began: Callable[[], int],
        load: Callable[[sqlite3.Connection, Change], None],
    ) -> None:
        """synchronous: SQLite's NORMAL or FULL. began: returns the offset at which a new store begins.

        load: reads the content into memory: what other processes have committed, or all of it.
        """
        self.path = os.path.abspath(path)
        self._synchronous = synchronous
        self._began = began
        self._load = load
        self._db: sqlite3.Connection | None = None
        self._file = (0, 0)  # device and inode
        self._seen_version = 0  # SQLite's data_version: it changes when another process commits

    def ready(self) -> sqlite3.Connection:
        """Return the open connection. Raises InboxUnavailable."""
        change = Change.OPENED
        if self._db is not None:
            if self._is_the_same_file():
                return self._db
            change = Change.REPLACED
            _log.warning("the inbox %s was removed or replaced; continuing with what is there now", self.path)
        self.close()
        try:
            self._db = self._open(change)
        except _FAILURES as error:
            raise self.unavailable(error) from None
        return self._db

    def reading(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """A transaction that only reads. Raises InboxUnavailable."""
        return self._transaction("BEGIN")

    def writing(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """A transaction that may write. Raises InboxUnavailable."""
        return self._transaction("BEGIN IMMEDIATE")

    def close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def unavailable(self, error: Exception) -> InboxUnavailable:
        """Return the error for callers of the inbox."""
        return InboxUnavailable(f"the inbox {self.path}: {_explain(error)}")

    def _is_the_same_file(self) -> bool:
        """Return whether the path still names the open file: what is written to a removed file is lost."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._file

    def _open(self, change: Change) -> sqlite3.Connection:
        Path(self.path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        secured = ownership.secure(self.path)
        db = sqlite3.connect(self.path, isolation_level=None, timeout=_BUSY_S)
        try:
            self._set_up(db, change)
            found = os.stat(self.path)
            self._file = (found.st_dev, found.st_ino)
            if self._file != secured:
                raise InboxUnavailable(f"the inbox {self.path} was replaced while it was opened: try again")
        except BaseException:
            db.close()
            raise
        return db

    def _set_up(self, db: sqlite3.Connection, change: Change) -> None:
        self._is_new(db)  # before anything is changed: it may be another program's file
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only possible before anything is in the file
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise InboxUnavailable(f"the inbox {self.path}: its file system has no WAL for SQLite; use a local disk")
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.execute("PRAGMA cache_size = -32768")  # 32 MiB
        db.execute("PRAGMA journal_size_limit = 67108864")
        db.execute("PRAGMA secure_delete = ON")  # deleted content is overwritten
        db.execute("BEGIN IMMEDIATE")
        if self._is_new(db):
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute("INSERT INTO meta VALUES ('began', ?), ('head', 0)", (self._began(),))
        self._load_content(db, change)
        db.execute("COMMIT")

    def _is_new(self, db: sqlite3.Connection) -> bool:
        """Return whether the file is still empty. Raises InboxUnavailable if it is no inbox of this format."""
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if version != FORMAT and (version or tables):
            raise InboxUnavailable(
                f"the inbox {self.path} has format {version} and this server's is {FORMAT}: name another file in INBOX_URL"
            )
        return not version

    def _load_content(self, db: sqlite3.Connection, change: Change) -> None:
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if change is not Change.COMMITTED or version != self._seen_version:
            self._load(db, change)
            self._seen_version = version

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        db = self.ready()
        try:
            db.execute(begin)
            self._load_content(db, Change.COMMITTED)
            yield db
            db.execute("COMMIT")
        except BaseException as error:
            harmless = _primary_code(error) in _HARMLESS
            if harmless and db.in_transaction:
                db.execute("ROLLBACK")
            elif not harmless:
                self.close()  # memory and file may differ: load the file again
            if isinstance(error, _FAILURES):
                raise self.unavailable(error) from None
            raise


def _primary_code(error: BaseException) -> int:
    """Return SQLite's primary error code, which an extended code has in its low byte."""
    if isinstance(error, msgspec.DecodeError):
        return sqlite3.SQLITE_CORRUPT
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


def _explain(error: Exception) -> str:
    """Return what is wrong, and the remedy."""
    if isinstance(error, OSError):
        return f"{error.strerror or error}; the directory must exist and be writable for this server"
    match _primary_code(error):
        case sqlite3.SQLITE_FULL:
            return "the disk is full; free space"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "another program keeps it locked; end that program"
        case sqlite3.SQLITE_READONLY:
            return "it cannot be written; make the file and its directory writable for this server"
        case sqlite3.SQLITE_CANTOPEN:
            return "it cannot be opened; its directory must exist and be writable for this server"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return "the file is corrupt; restore it, or move it away (with its -wal and -shm files) to begin anew"
        case sqlite3.SQLITE_IOERR:
            return f"the disk does not read or write ({error}); it may be full, or the system's log has the reason"
    return str(error)
