"""The registry of several nodes, in Redis.

A thread reports changes in batches: what changes during one report is in the next, so a storm of connections costs one
round trip for hundreds of them. Each report renews the node's lease; the other nodes forget a node whose lease has ended.
A report says what is true now, as SessionManager knows it, and not what has happened: a report whose answer was lost is
repeated. Reports are numbered. If Redis has another number than expected, reports were lost, and its content is compared
with this node's connections.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

import msgspec
import redis

from socket_server import log
from socket_server.cluster.address_counts import AddressCounts
from socket_server.cluster.registry import SIGNED_OUT, ClusterStats, End, NodeStats, Online, age_s
from socket_server.cluster.single_flight import SingleFlight
from socket_server.errors import ClusterUnavailable
from socket_server.redis_access import lua
from socket_server.redis_access.advice import explain
from socket_server.redis_access.client import TIMEOUT_S, connect
from socket_server.redis_access.dedicated_connection import DedicatedConnection
from socket_server.redis_access.keys import DEFAULT_KEYS, Keys, encode
from socket_server.sessions import SessionManager, Stats
from socket_server.transport.socketio.connection import Connection

_log = log.logger("Server")

# Another node's renewal removes a node whose lease has ended: within LEASE_S + RENEW_S, and the time to remove its
# connections. docs/protocol.md promises 15 s.
LEASE_S = 9.0
RENEW_S = 2.0
# How long a new connection waits until it is counted on all nodes. After that it is greeted all the same.
VISIBLE_TIMEOUT_S = 2.0
# Counts by address are reported at most this much later: unauthenticated clients change them at will.
_COALESCE_S = 0.05
_RETRY_S = 0.5  # while Redis cannot be reached
# Connections in one report, and in one step of forgetting a node: some milliseconds of Redis's time.
_BATCH = 250
_CALLS = 4  # concurrent calls for REST requests, beside the reports

_decode = msgspec.msgpack.Decoder(tuple[str, float, str, str, str, str]).decode

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_State = Sequence[str | bytes | float]  # the arguments of update.lua for one connection


class RedisRegistry:
    """The Registry of all nodes with the same Redis and prefix."""

    def __init__(
        self,
        url: str,
        sessions: SessionManager,
        node: str,
        max_per_user: int,
        addresses: AddressCounts,
        keys: Keys = DEFAULT_KEYS,
    ) -> None:
        """Does not connect yet. Raises ConfigError if the URL is malformed."""
        self.node = node
        self._keys = keys
        self._sessions = sessions
        self._max_per_user = max_per_user
        self._addresses = addresses
        self._client: Any  # its types leave open whether it answers with bytes or text
        self._client, self._where = connect(url, _CALLS + 2)
        self._call_slots = threading.BoundedSemaphore(_CALLS)
        self._shared_count = SingleFlight(self._count)
        self._report_connection = DedicatedConnection(self._client)
        self._password = self._client.connection_pool.connection_kwargs.get("password") or ""
        self._update = self._script("update")
        self._forget_node = self._script("forget_node")
        self._sign_out = self._script("sign_out")
        self._stats = self._script("stats")
        self._end: End = lambda *_: None

        self._lock = threading.Lock()  # guards what follows; no I/O under it
        self._changed: dict[Connection, None] = {}  # not reported yet, in order
        self._in_report: dict[Connection, None] = {}  # in the report that is being sent
        self._stale: list[tuple[bytes, bytes]] = []  # (user, sid) in Redis of connections that this node does not have
        self._waiting: dict[Connection, threading.Event] = {}
        self._failures: Counter[str] = Counter()  # failed authentications by address, not reported yet
        self._counts: dict[str, int] = {}  # connections by address, not reported yet
        self._wake = threading.Event()  # there is something to report
        self._hurry = threading.Event()  # a client waits for the report
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

        self._trouble: str | None = "has not been reached yet"  # None: in contact
        self._report_number = 0  # of the last report
        self._in_doubt = False  # whether Redis may differ from this node
        self._differed = False  # whether the last count differed
        self._certain_ms = 0  # when the two last agreed, by Redis's clock
        self._clock_s = 0.0  # Redis's clock minus this process's monotonic clock

    def _script(self, name: str) -> Any:
        return self._client.register_script(lua.load("socket_server.cluster", "common", name))

    # Changes on this node; from any thread, without blocking

    def changed(self, connection: Connection) -> None:
        """A connection was added or removed (called by SessionManager)."""
        with self._lock:
            self._changed[connection] = None
        self._wake.set()
        self._hurry.set()

    def moved(self, connection: Connection) -> None:
        self.changed(connection)

    def failed(self, address: str) -> None:
        """An authentication from this address failed."""
        with self._lock:
            if self._trouble is None:
                self._failures[address] += 1
        self._wake.set()

    def counted(self, address: str, count: int) -> None:
        """This node now has this number of connections from an address."""
        with self._lock:
            self._counts[address] = count
        self._wake.set()

    # The Registry

    def start(self, end: End) -> None:
        self._end = end
        self._sessions.watch(self.changed)
        self._thread = threading.Thread(target=self._run, name="registry", daemon=True)
        self._thread.start()

    def wait_until_visible(self, connection: Connection) -> None:
        with self._lock:
            if self._trouble is not None or not (connection in self._changed or connection in self._in_report):
                return
            reported = self._waiting.setdefault(connection, threading.Event())
        reported.wait(VISIBLE_TIMEOUT_S)

    def connections_of(self, user_id: str) -> list[Online]:
        found: Mapping[bytes, bytes] = self._call(lambda: self._client.hgetall(self._keys.connections_of(user_id)))
        online = []
        for sid, text in found.items():
            node, since_ms, _, transport, address, agent = _decode(text)
            online.append(Online(sid.decode(), node, since_ms / 1000, transport, address, agent))
        return sorted(online, key=lambda each: each.since)

    def sign_out(self, user_id: str) -> int:
        count: int = self._call(lambda: self._sign_out(args=[self._keys.prefix, self.node, encode(user_id)]))
        self._end_all(user_id)
        return count

    def stats(self) -> ClusterStats:
        return self._shared_count()

    def _count(self) -> ClusterStats:
        users, *nodes = self._call(lambda: self._stats(args=[self._keys.prefix, self.node]))
        each = tuple(NodeStats(name.decode(), Stats(count, connections)) for name, count, connections in nodes)
        return ClusterStats(Stats(users, sum(node.stats.total_connections for node in each)), each)

    def check(self) -> None:
        if self._trouble is not None:
            raise ClusterUnavailable(f"the Redis at {self._where} {self._trouble}")

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(RENEW_S)
        if self._trouble is None and (self._thread is None or not self._thread.is_alive()):
            try:
                self._forget(self.node, by_itself=True)
            except (redis.RedisError, OSError):
                pass  # the lease will end
        self._client.close()

    # What other nodes ask or report (feed.py reads it)

    def handle_control(self, message: Mapping[bytes, bytes]) -> None:
        """Handle an entry of this node's control stream."""
        user_id = message.get(b"user", b"").decode("utf-8", "surrogatepass")
        node = message.get(b"node", b"").decode()
        match message[b"kind"]:
            case b"end":
                for connection in self._sessions.connections_of([user_id]).connections:
                    if connection.sid.encode() == message[b"sid"]:
                        self._end(connection, message[b"why"].decode())
            case b"sign out":
                # Connections that were authenticated after it stay, however late the message arrives.
                age = self._clock_s + time.monotonic() - float(message[b"at"]) / 1000
                self._end_all(user_id, older_than_s=age)
            case b"gone":
                self._addresses.forget_elsewhere(node)
            case b"failed" if node != self.node:
                self._addresses.failed_elsewhere(message[b"address"].decode(), int(message[b"count"]))
            case b"address" if node != self.node:
                self._addresses.set_elsewhere(node, message[b"address"].decode(), int(message[b"count"]))

    def _end_all(self, user_id: str, older_than_s: float = 0.0) -> None:
        for connection in self._sessions.connections_of([user_id]).connections:
            if age_s(connection) >= older_than_s:
                self._end(connection, SIGNED_OUT)

    # Reports

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._report()
            except (redis.RedisError, OSError) as error:
                self._lost_contact(explain(error, self._keys.prefix, self._password))
                self._stopping.wait(_RETRY_S)
            except Exception:
                _log.exception("unexpected error in the registry")
                self._lost_contact("answers unexpectedly; the server's log has the details")
                self._stopping.wait(_RETRY_S)
        try:
            while self._changed and self._trouble is None:
                self._report()  # the connections that have ended last
        except (redis.RedisError, OSError):
            pass  # the lease will end

    def _report(self) -> None:
        """Send the next report when there is something to report, at the latest to renew the lease."""
        if self._trouble is None and not (self._changed or self._stale or self._in_doubt):
            if not (self._failures or self._counts):
                self._wake.wait(RENEW_S)
            self._hurry.wait(_COALESCE_S)
        self._wake.clear()
        self._hurry.clear()
        if self._in_doubt:
            self._compare()
            self._read_missed()
        with self._lock:
            batch = self._in_report = _take(self._changed)
            stale, self._stale = self._stale[:_BATCH], self._stale[_BATCH:]
            failures, counts = _take(self._failures), _take(self._counts)
        self._in_doubt = True  # until Redis has answered
        states: list[_State] = [*map(self._state, batch), *(_ended(user, sid) for user, sid in stale)]
        before, now_ms, count, ended_nodes = self._report_connection.run(
            self._update,
            self._keys.prefix,
            self.node,
            round(LEASE_S * 1000),
            self._max_per_user,
            self._sessions.stats().connected_users,
            self._report_number + 1,
            len(states),
            len(failures),
            *chain.from_iterable(states),
            *_flat(failures),
            *_flat(counts),
        )
        self._clock_s = now_ms / 1000 - time.monotonic()
        self._in_doubt = before != self._report_number or self._differs(count)
        self._report_number += 1
        if not self._in_doubt:
            self._certain_ms = now_ms
        self._in_contact(batch)
        for node in ended_nodes:
            _log.warning("node %s has ended: its connections are no longer counted", node.decode())
            self._forget(node.decode())

    def _in_contact(self, batch: Iterable[Connection]) -> None:
        with self._lock:
            self._in_report = {}
            waiting = [self._waiting.pop(connection) for connection in batch if connection in self._waiting]
            before, self._trouble = self._trouble, None
        for each in waiting:
            each.set()
        if before is not None:
            _log.info("node %s is in contact with the other nodes through the Redis at %s", self.node, self._where)

    def _lost_contact(self, trouble: str) -> None:
        with self._lock:
            self._changed, self._in_report = self._in_report | self._changed, {}
            waiting, self._waiting = list(self._waiting.values()), {}
            before, self._trouble = self._trouble, trouble
        for each in waiting:
            each.set()
        if before != trouble and not self._stopping.is_set():
            _log.error("node %s has lost contact with the other nodes: the Redis at %s %s", self.node, self._where, trouble)

    def _state(self, connection: Connection) -> _State:
        """Return the arguments of update.lua for a connection, as it is now."""
        user = encode(connection.user_id or "")
        if not self._sessions.has(connection):
            return _ended(user, connection.sid)
        return (
            user,
            connection.sid,
            connection.pid,
            round(age_s(connection) * 1000, 3),
            connection.transport,
            connection.address,
            connection.user_agent,
        )

    # If Redis may differ from this node

    def _compare(self) -> None:
        """Read what Redis knows of this node, and note what has to be reported again."""
        known: Mapping[bytes, bytes] = self._client.hgetall(self._keys.node(self.node))
        addresses: Mapping[bytes, bytes] = self._client.hgetall(self._keys.addresses(self.node))
        present = {connection.sid.encode(): connection for connection in self._sessions.everyone()}
        with self._lock:
            self._changed |= dict.fromkeys(present[sid] for sid in present.keys() - known.keys())
            self._stale = [(user, sid) for sid, user in known.items() if sid not in present]
            self._counts = {address.decode(): 0 for address in addresses} | dict(self._addresses.counts())

    def _read_missed(self) -> None:
        """Read what the other nodes reported while Redis may not have known this node."""
        signed_out = self._client.zrangebyscore(self._keys.signed_out, self._certain_ms, "+inf", withscores=True)
        now_s, microseconds = self._client.time()
        for user, at_ms in signed_out:
            self._end_all(user.decode("utf-8", "surrogatepass"), older_than_s=now_s + microseconds / 1e6 - at_ms / 1000)
        counts: dict[str, dict[str, int]] = {}
        for node in self._client.zrange(self._keys.nodes, 0, -1):
            name = node.decode()
            if name != self.node:
                found = self._client.hgetall(self._keys.addresses(name))
                counts[name] = {address.decode(): int(count) for address, count in found.items()}
        self._addresses.set_all_elsewhere(counts)

    def _differs(self, count: int) -> bool:
        """Return whether the counts differed twice in a row: then the difference is not just a change on its way."""
        differs = not self._changed and count != self._sessions.stats().total_connections
        before, self._differed = self._differed, differs
        return differs and before

    def _forget(self, node: str, *, by_itself: bool = False) -> None:
        while self._forget_node(args=[self._keys.prefix, node, _BATCH, "1" if by_itself else ""]):
            pass

    # Errors

    def _call(self, call: Callable[[], Any]) -> Any:
        """Run a call. Raises ClusterUnavailable for every error of Redis or the network; at once while contact is lost."""
        self.check()
        if not self._call_slots.acquire(timeout=TIMEOUT_S):
            raise ClusterUnavailable(f"the Redis at {self._where} does not keep up: check its load (SLOWLOG, CPU)")
        try:
            return call()
        except (redis.RedisError, OSError) as error:
            advice = explain(error, self._keys.prefix, self._password)
            raise ClusterUnavailable(f"the Redis at {self._where} {advice}") from None
        finally:
            self._call_slots.release()


def _take(waiting: dict[_Key, _Value]) -> dict[_Key, _Value]:
    """Remove and return the oldest items, at most one batch."""
    taken = dict(islice(waiting.items(), _BATCH))
    for key in taken:
        del waiting[key]
    return taken


def _flat(numbers: Mapping[str, int]) -> Iterator[str | int]:
    for name, number in numbers.items():
        yield name
        yield number


def _ended(user: bytes, sid: str | bytes) -> _State:
    return user, sid, "", "", "", "", ""
