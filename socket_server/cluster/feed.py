"""The feed of a node: the log of all notifications, which it delivers to its own connections, and its control stream.

Both are streams, not publish/subscribe: a node that was unreachable continues reading at its last entry, in order, without
a gap or a repeat.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import redis

from socket_server import log
from socket_server.errors import ClusterUnavailable, InboxUnavailable
from socket_server.inbox.inbox import Record
from socket_server.inbox.redis.encoding import decode_log, fields_of, offset_of
from socket_server.redis_access.advice import explain
from socket_server.redis_access.client import connect
from socket_server.redis_access.dedicated_connection import DedicatedConnection
from socket_server.redis_access.keys import DEFAULT_KEYS, Keys

_log = log.logger("Server")

# If there are no new entries, a read blocks in Redis for this long.
_BLOCK_MS = 1_000
# Entries of the log in one read. Each is what a node has stored together; a notification can have a megabyte.
MAX_ENTRIES = 50
# After a read that returned entries, those that arrive within this time are read together.
_COALESCE_S = 0.002
# While this node appends, each append returns what the others have stored, and a read would return little but its own
# entries. Reading pauses until there was no append for _QUIET_S, at most for _MAX_PAUSE_S: there may be control messages.
_QUIET_S = 0.005
_MAX_PAUSE_S = 0.1
_RETRY_S = 0.25  # while Redis cannot be reached


class Delivery(Protocol):
    """The consumer of the log (notifications/broadcaster.py)."""

    @property
    def head(self) -> int:
        """The newest offset delivered."""

    def deliver(self, records: Sequence[Record]) -> object:
        """Deliver records after the head."""

    def catch_up(self) -> None:
        """Deliver what the store has after the head. Raises InboxUnavailable."""


class ControlHandler(Protocol):
    """The consumer of the control stream (redis_registry.py)."""

    def handle_control(self, message: Mapping[bytes, bytes]) -> object:
        """Handle one message."""


class Feed:
    """Reads in a thread of its own (a greenlet on gevent)."""

    def __init__(self, url: str, node: str, control: ControlHandler, keys: Keys = DEFAULT_KEYS) -> None:
        """node: whose control stream is read. Does not connect yet. Raises ConfigError if the URL is malformed."""
        self._control = control
        self._keys = keys
        self._control_stream = keys.control_stream(node)
        self._control_read = "0"  # the id of the last entry that was handled
        self._client, self._where = connect(url, 2)
        self._connection = DedicatedConnection(self._client)
        self._password = self._client.connection_pool.connection_kwargs.get("password") or ""
        self._trouble: str | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, delivery: Delivery, begin: Callable[[], object] | None) -> None:
        """Start reading. begin: what must be done before the first read; it raises InboxUnavailable if that must be tried
        again. None: nothing."""
        self._thread = threading.Thread(target=self._run, args=(delivery, begin), name="feed", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise ClusterUnavailable if the last read failed."""
        if self._trouble is not None:
            raise ClusterUnavailable(f"the Redis at {self._where} {self._trouble}")

    def stop(self) -> None:
        self._stopping.set()
        self._client.connection_pool.disconnect()  # ends a read that blocks
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
                self._stopping.wait(_RETRY_S)  # the inbox has logged it
            except (redis.RedisError, OSError) as error:
                if not self._stopping.is_set():
                    self._failed(explain(error, self._keys.prefix, self._password))
            except Exception:
                if self._stopping.is_set():
                    return  # stop() has closed the connection during a read
                _log.exception("unexpected error in the feed")
                self._failed("sends what cannot be read; the server's log has the details")

    def _read(self, delivery: Delivery) -> None:
        before = delivery.head
        limits = ("COUNT", MAX_ENTRIES, "BLOCK", _BLOCK_MS)
        streams = (self._keys.log, self._control_stream, f"{before}-0", self._control_read)
        answer = self._connection.call("XREAD", *limits, "STREAMS", *streams)
        if answer is None and int(self._connection.call("GET", self._keys.head) or 0) < before:
            # Redis has lost what this node has delivered. What other nodes store now may get offsets below this head.
            delivery.catch_up()
        more = False
        for stream, entries in answer or ():
            more = more or len(entries) == MAX_ENTRIES
            if stream == self._keys.log.encode():
                head = delivery.head
                new = [entry for entry in entries if offset_of(entry[0]) > head]
                if new:
                    delivery.deliver(decode_log(new, head))
            else:
                for entry_id, fields in entries:
                    self._control_read = entry_id.decode()
                    self._control.handle_control(fields_of(fields))
        if answer and not more:
            self._pause(delivery)

    def _pause(self, delivery: Delivery) -> None:
        head = delivery.head
        self._stopping.wait(_COALESCE_S)
        began = time.monotonic()
        while delivery.head != head and time.monotonic() - began < _MAX_PAUSE_S:
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
