"""What a node reads from Redis: the log of all notifications, which it delivers to its own connections, and its news.

The log is a stream and not a message that is gone when nobody hears it: a node that was away reads on from where it was, in
order, without a gap and without a double.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import redis

from socket_server import log
from socket_server.cluster import scripts
from socket_server.errors import ClusterUnavailable, InboxUnavailable
from socket_server.inbox.inbox import Record
from socket_server.inbox.redis.dedicated_connection import DedicatedConnection
from socket_server.inbox.redis.scripts import HEAD, LOG, offset_of, pairs, records
from socket_server.inbox.redis.store import connect, explain

_log = log.logger("Server")

# Redis holds a read back until there is something, for so long.
_WAIT_MS = 1_000
# Entries of the log in one read: each is what a node has stored together, and a notification may have a megabyte.
COUNT = 50
# After a read that brought something, what comes within this is read together.
_REST_S = 0.002
# While this node stores something itself, each of its appends brings along what the others have stored, and a read would
# find little but its own: it waits until for so long there was no append,
_QUIET_S = 0.005
# or so long in all: there may be news.
_BUSY_S = 0.1
_RETRY_S = 0.25  # while Redis cannot be reached


class Delivery(Protocol):
    """What takes the log in (notifications/broadcaster.py)."""

    @property
    def head(self) -> int:
        """The newest offset delivered."""

    def deliver(self, records: Sequence[Record]) -> object:
        """Take what comes after it."""

    def catch_up(self) -> None:
        """Ask the store itself what comes after it. Raises InboxUnavailable."""


class Listener(Protocol):
    """What takes the news in (redis_registry.py)."""

    def hear(self, news: Mapping[bytes, bytes]) -> object: ...


class Feed:
    """Reads, one batch after the other, in a thread (a greenlet, on gevent) of its own."""

    def __init__(self, url: str, node: str, listener: Listener) -> None:
        """listener: hears the news of this node.

        Connects to nothing yet. Raises ConfigError for a URL that cannot be read.
        """
        self._listener = listener
        self._news = scripts.NEWS + node
        self._news_read = "0"
        self._client, self._where = connect(url, 2)
        self._line = DedicatedConnection(self._client)
        self._password = self._client.connection_pool.connection_kwargs.get("password") or ""
        self._trouble: str | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, delivery: Delivery, begin: Callable[[], object] | None) -> None:
        """begin: what has to be done before the first read, where that could not be done yet; raises InboxUnavailable where
        it still cannot."""
        self._thread = threading.Thread(target=self._run, args=(delivery, begin), name="feed", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Return where the last read came back. Raises ClusterUnavailable."""
        if self._trouble is not None:
            raise ClusterUnavailable(f"the Redis at {self._where} {self._trouble}")

    def stop(self) -> None:
        self._stopping.set()
        self._client.connection_pool.disconnect()  # ends the read that waits
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self, delivery: Delivery, begin: Callable[[], object] | None) -> None:
        while not self._stopping.is_set():
            try:
                if begin is not None:
                    begin()
                    begin = None
                self._read(delivery)
                self._recovered()
            except InboxUnavailable:
                self._stopping.wait(_RETRY_S)  # it has been logged
            except (redis.RedisError, OSError) as error:
                if not self._stopping.is_set():
                    self._failed(explain(error, self._password))
            except Exception:
                if self._stopping.is_set():
                    return  # the client does not expect that its connection is taken from it
                _log.exception("unexpected error in the feed")
                self._failed("sends what cannot be read; the server's log says more")

    def _read(self, delivery: Delivery) -> None:
        before = delivery.head
        limits = ("COUNT", COUNT, "BLOCK", _WAIT_MS)
        answer = self._line.ask("XREAD", *limits, "STREAMS", LOG, self._news, f"{before}-0", self._news_read)
        if answer is None and int(self._line.ask("GET", HEAD) or 0) < before:
            # Redis has lost what went out here. What others store there meanwhile may get offsets that lie before the head.
            delivery.catch_up()
        more = False
        for stream, entries in answer or ():
            more = more or len(entries) == COUNT
            if stream == LOG.encode():
                head = delivery.head
                new = [entry for entry in entries if offset_of(entry[0]) > head]
                if new:
                    delivery.deliver(records(new, head))
            else:
                for entry_id, fields in entries:
                    self._news_read = entry_id.decode()
                    self._listener.hear(pairs(fields))
        if answer and not more:
            self._rest(delivery)

    def _rest(self, delivery: Delivery) -> None:
        head = delivery.head
        self._stopping.wait(_REST_S)
        began = time.monotonic()
        while delivery.head != head and time.monotonic() - began < _BUSY_S:
            head = delivery.head
            time.sleep(_QUIET_S)

    def _recovered(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            _log.info("the log of all nodes is read again, from the Redis at %s", self._where)

    def _failed(self, trouble: str) -> None:
        if self._trouble != trouble:
            _log.error("the log of all nodes cannot be read: the Redis at %s %s", self._where, trouble)
        self._trouble = trouble
        self._stopping.wait(_RETRY_S)
