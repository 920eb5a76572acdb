"""The SQLite inbox as the server uses it: asked of a keeper process, over sockets that the event loop can wait for.

Appends have a channel of their own, which the keeper serves first, so that no number of recoveries holds up a broadcast. A
keeper that dies or falls silent is replaced; that it may die at any moment is what SQLite is for.
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
from socket_server.inbox.sqlite.encoded_entry import pack
from socket_server.runtime.time_slice import poll_event_loop

_log = log.logger("Server")

# So many reads go to the keeper together, which answers as many of them as it can in a few milliseconds.
READ_AT_ONCE = 64
# A keeper that has not answered for so long is taken for stuck. For another program's lock it waits a few seconds.
TIMEOUT_S = 5.0
_RESTART_S = 1.0  # no sooner after the last start
_END_S = 5.0

_WRITES, _READS, _OTHERS = range(3)  # the channels, in the keeper's order
_CHANNELS = 3

_CLOSED = "the inbox is closed"


_STORAGE_PROCESS = "socket_server.inbox.sqlite.storage_process"  # the module that the process runs


class SqliteClient:
    """An Inbox in a SQLite file. Callers wait; the process (the gevent hub) does not."""

    def __init__(self, path: str, retention: Retention, *, synchronous: str = "NORMAL") -> None:
        """synchronous: NORMAL or FULL, see SqliteFile."""
        self._options = {
            "path": os.path.abspath(path),
            "ttl_s": retention.ttl_s,
            "max_per_user": retention.max_per_user,
            "synchronous": synchronous,
        }
        self._keeper: _Keeper | None = None
        self._changing = threading.Lock()
        self._started = -_RESTART_S
        self._closed = False
        self._reading = threading.Lock()
        self._reads: deque[_Read] = deque()

    @property
    def place(self) -> str:
        return str(self._options["path"])

    def open(self) -> int:
        return self._number(self._ask(messages.Open(), _WRITES))

    def append(self, entries: Sequence[Entry], after: int | None = None) -> Appended:
        reply = self._ask(messages.Append(tuple(map(pack, entries)), after), _WRITES)
        assert isinstance(reply, messages.HasAppended)
        return reply.appended

    def amend(self, key: str, answer: bytes) -> None:
        self._ask(messages.Amend(key, answer), _WRITES)

    def since(self, user_id: str, after: int, until: int | None, limit: int, max_bytes: int) -> Page:
        read = _Read(Read(user_id, after, until, limit, max_bytes))
        self._reads.append(read)
        while not read.ended:
            # Whoever gets the turn reads for those who wait too.
            with self._reading:
                if not read.ended:
                    self._read_together()
        if read.error is not None:
            raise read.error
        assert read.page is not None
        return read.page

    def _read_together(self) -> None:
        poll_event_loop()  # whose client has come back already joins
        reads = [self._reads.popleft() for _ in range(min(len(self._reads), READ_AT_ONCE))]
        try:
            reply = self._ask(messages.Since(tuple(read.asked for read in reads)), _READS)
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
                read.ended = True

    def forget(self, user_id: str) -> int:
        return self._number(self._ask(messages.Forget(user_id)))

    def check(self) -> None:
        self._ask(messages.Check())

    def close(self) -> None:
        with self._changing:
            self._closed = True
            keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.end()

    @staticmethod
    def _number(reply: messages.Reply) -> int:
        assert isinstance(reply, messages.Done)
        return reply.number

    def _ask(self, request: messages.Request, channel: int = _OTHERS) -> messages.Reply:
        """Return the keeper's reply. Raises InboxUnavailable."""
        keeper = self._running()
        try:
            body = keeper.ask(channel, messages.encode(request))
        except TimeoutError:
            body, reason = None, f"it has not answered for {TIMEOUT_S:g} s"
        except OSError:
            body, reason = None, "it has ended"
        else:
            reason = "it has ended"
        if body is None:
            if self._closed:
                raise InboxUnavailable(_CLOSED)
            self._replace(keeper, reason)
            raise InboxUnavailable(f"the inbox's process was lost ({reason}); another one is started")
        reply = messages.decode_reply(body)
        if isinstance(reply, messages.Failed):
            raise InboxUnavailable(reply.reason)
        return reply

    def _running(self) -> "_Keeper":
        with self._changing:
            if self._closed:
                raise InboxUnavailable(_CLOSED)
            if self._keeper is None:
                if time.monotonic() < self._started + _RESTART_S:
                    raise InboxUnavailable(
                        "the inbox's process was lost and is about to be started again; try again in a second"
                    )
                self._started = time.monotonic()
                try:
                    self._keeper = _Keeper(self._options)
                except OSError as error:
                    raise InboxUnavailable(f"the inbox's process cannot be started: {error}") from None
            return self._keeper

    def _replace(self, keeper: "_Keeper", reason: str) -> None:
        with self._changing:
            if self._keeper is not keeper:
                return  # another caller has seen it too
            self._keeper = None
        _log.error("the inbox's process was lost: %s", reason)
        keeper.kill()


class _Read:
    """A read that waits for its turn, and what became of it."""

    __slots__ = ("asked", "ended", "error", "page")

    def __init__(self, asked: Read) -> None:
        self.asked = asked
        self.page: Page | None = None
        self.error: InboxUnavailable | None = None
        self.ended = False


class _Keeper:
    """A keeper process, and the channels to it."""

    def __init__(self, options: dict[str, object]) -> None:
        pairs = [socket.socketpair() for _ in range(_CHANNELS)]
        theirs = [pair[1] for pair in pairs]
        ours = [pair[0] for pair in pairs]
        fds = [each.fileno() for each in theirs]
        root = str(Path(socket_server.__file__).parent.parent)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this very package
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "socket_server.inbox.sqlite.storage_process",
                    json.dumps({**options, "channels": fds}),
                ],
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
        threading.Thread(target=self._pass_on, daemon=True).start()
        self._channels = [(each, threading.Lock()) for each in ours]

    def _pass_on(self) -> None:
        """Log what it has to say: warnings, and why it broke down."""
        assert self._process.stderr is not None
        with self._process.stderr as said:
            for line in said:
                _log.warning("%s", line.rstrip())

    def ask(self, channel: int, message: bytes) -> bytes | None:
        """Send a message and return the body of the reply; None: the process has ended. Raises OSError."""
        sock, turn = self._channels[channel]
        with turn:
            try:
                sock.sendall(message)
                return messages.receive(sock)
            except BaseException:
                sock.close()  # or whoever asks next would take this answer for its own
                raise

    def kill(self) -> None:
        self._process.kill()
        self._let_go()

    def end(self) -> None:
        """Let it finish what it is doing, and wait for its end."""
        self._let_go()

    def _let_go(self) -> None:
        for each, _ in self._channels:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # whoever waits for an answer gets none
            each.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            # In a disk's wait it may not end even so; nobody waits for that.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
