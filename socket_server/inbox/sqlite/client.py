"""The SQLite inbox in a worker: it asks a storage process over sockets, which the event loop can wait for.

Appends have a channel of their own, which the storage process serves first, so recoveries never delay a broadcast. A
storage process that ends or hangs is replaced; SQLite makes it safe to end it at any moment.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import socket_server
from socket_server import log
from socket_server.inbox.inbox import Appended, Entry, InboxUnavailable, Page, Read, Retention
from socket_server.inbox.sqlite import messages
from socket_server.inbox.sqlite.encoded_entry import encode
from socket_server.metrics.values import Counter
from socket_server.runtime.time_slice import poll_event_loop

_log = log.logger("Server")

MODULE = "socket_server.inbox.sqlite.storage_process"

# Reads in one message. The storage process answers as many of them as it can in a few milliseconds.
MAX_READS = 64
# A storage process that does not answer for this long hangs. It waits a few seconds for another program's lock.
TIMEOUT_S = 5.0
_RESTART_S = 1.0  # between two starts, at least
_END_S = 5.0  # to end by itself

_APPENDS, _READS, _OTHERS = range(3)  # the channels, by priority
_CHANNELS = 3

_CLOSED = "the inbox is closed"


class SqliteClient:
    """An Inbox in a SQLite file. A call blocks its caller and not the event loop. Thread-safe."""

    def __init__(self, path: str, retention: Retention, *, synchronous: str = "NORMAL") -> None:
        """synchronous: NORMAL or FULL, see SqliteFile."""
        self.restarts = Counter()  # of the storage process, after it ended or hung
        self._options = {
            "path": os.path.abspath(path),
            "ttl_s": retention.ttl_s,
            "max_per_user": retention.max_per_user,
            "synchronous": synchronous,
        }
        self._process: StorageProcess | None = None
        self._process_lock = threading.Lock()
        self._started_at = -_RESTART_S
        self._closed = False
        self._read_lock = threading.Lock()
        self._reads: deque[_PendingRead] = deque()

    @property
    def place(self) -> str:
        return str(self._options["path"])

    def open(self) -> int:
        return self._number(self._ask(messages.Open(), _APPENDS))

    def append(self, entries: Sequence[Entry], after: int | None = None) -> Appended:
        reply = self._ask(messages.Append(tuple(map(encode, entries)), after), _APPENDS)
        assert isinstance(reply, messages.HasAppended)
        return reply.appended

    def amend(self, key: str, answer: bytes) -> None:
        self._ask(messages.Amend(key, answer), _APPENDS)

    def since(self, user_id: str, after: int, until: int | None, limit: int, max_bytes: int) -> Page:
        read = _PendingRead(Read(user_id, after, until, limit, max_bytes))
        self._reads.append(read)
        while not read.done:
            # The caller that gets the lock reads for all that are waiting.
            with self._read_lock:
                if not read.done:
                    self._read_batch()
        if read.error is not None:
            raise read.error
        assert read.page is not None
        return read.page

    def _read_batch(self) -> None:
        poll_event_loop()  # clients whose requests have arrived join the batch
        reads = [self._reads.popleft() for _ in range(min(len(self._reads), MAX_READS))]
        try:
            reply = self._ask(messages.Since(tuple(read.arguments for read in reads)), _READS)
            assert isinstance(reply, messages.Pages)
            self._reads.extendleft(reversed(reads[len(reply.pages) :]))
            del reads[len(reply.pages) :]
            for read, page in zip(reads, reply.pages, strict=True):
                read.page = page
        except InboxUnavailable as error:
            for read in reads:
                read.error = error
        finally:
            for read in reads:
                read.done = True

    def forget(self, user_id: str) -> int:
        return self._number(self._ask(messages.Forget(user_id)))

    def check(self) -> None:
        self._ask(messages.Check())

    def close(self) -> None:
        with self._process_lock:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            process.end()

    @staticmethod
    def _number(reply: messages.Reply) -> int:
        assert isinstance(reply, messages.Done)
        return reply.number

    def _ask(self, request: messages.Request, channel: int = _OTHERS) -> messages.Reply:
        """Return the reply of the storage process. Raises InboxUnavailable."""
        process = self._running()
        try:
            body = process.ask(channel, messages.encode(request))
        except TimeoutError:
            body, reason = None, f"it did not answer for {TIMEOUT_S:g} s"
        except OSError:
            body, reason = None, "it has ended"
        else:
            reason = "it has ended"
        if body is None:
            if self._closed:
                raise InboxUnavailable(_CLOSED)
            self._replace(process, reason)
            raise InboxUnavailable(f"the storage process was lost ({reason}); another one is started")
        reply = messages.decode_reply(body)
        if isinstance(reply, messages.Failed):
            raise InboxUnavailable(reply.reason)
        return reply

    def _running(self) -> "StorageProcess":
        with self._process_lock:
            if self._closed:
                raise InboxUnavailable(_CLOSED)
            if self._process is None:
                if time.monotonic() < self._started_at + _RESTART_S:
                    raise InboxUnavailable("the storage process was lost and starts again soon; try again in a second")
                self._started_at = time.monotonic()
                try:
                    self._process = StorageProcess(self._options)
                except OSError as error:
                    raise InboxUnavailable(f"the storage process cannot be started: {error}") from None
            return self._process

    def _replace(self, process: "StorageProcess", reason: str) -> None:
        with self._process_lock:
            if self._process is not process:
                return  # another caller has replaced it
            self._process = None
        self.restarts.value += 1
        _log.error("the storage process was lost: %s", reason)
        process.kill()


class _PendingRead:
    """A read that waits for its batch, and its result."""

    __slots__ = ("arguments", "done", "error", "page")

    def __init__(self, arguments: Read) -> None:
        self.arguments = arguments
        self.page: Page | None = None
        self.error: InboxUnavailable | None = None
        self.done = False


class StorageProcess:
    """A storage process, and the channels to it."""

    def __init__(self, options: dict[str, object]) -> None:
        """options: the arguments of SqliteFile. Raises OSError if the process cannot be started."""
        pairs = [socket.socketpair() for _ in range(_CHANNELS)]
        ours = [pair[0] for pair in pairs]
        theirs = [pair[1] for pair in pairs]
        fds = [each.fileno() for each in theirs]
        root = str(Path(socket_server.__file__).parent.parent)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a module of this package
                [sys.executable, "-P", "-m", MODULE, json.dumps({**options, "channels": fds})],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))},
            )
        except OSError:
            for each in ours:
                each.close()
            raise
        finally:
            for each in theirs:
                each.close()
        for each in ours:
            each.settimeout(TIMEOUT_S)
        threading.Thread(target=self._log_errors, daemon=True).start()
        self._channels = [(each, threading.Lock()) for each in ours]

    def _log_errors(self) -> None:
        """Log what the process writes: warnings, and why it broke down."""
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                _log.warning("%s", line.rstrip())

    def ask(self, channel: int, message: bytes) -> bytes | None:
        """Send a message; return the body of the reply, or None if the process has ended. Raises OSError."""
        sock, lock = self._channels[channel]
        with lock:
            try:
                sock.sendall(message)
                return messages.receive(sock)
            except BaseException:
                sock.close()  # otherwise the next caller would take this reply for its own
                raise

    def kill(self) -> None:
        self._process.kill()
        self._wait()

    def end(self) -> None:
        """Let the process complete what it is doing, and wait until it has ended."""
        self._wait()

    def _wait(self) -> None:
        for each, _ in self._channels:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # ends the waits of callers
            each.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            # A process that waits for the disk may not end even then.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
