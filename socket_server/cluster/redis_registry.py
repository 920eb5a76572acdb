"""The registry of several nodes, in Redis.

What has changed here is made known in batches: whoever comes while one is on its way is in the next, so that a storm of
connections costs a round trip for hundreds of them. Each batch renews this node's lease; a node whose lease runs out is
forgotten by the others. What is written is not what has happened but how it is now, as SessionManager knows it: so nothing
depends on the outcome of a call whose answer was lost, and everything can be said again. Updates are numbered: where Redis
names another than the last one, it has lost some, and what it knows is compared with what is there.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Protocol, TypeVar

import msgspec
import redis

from socket_server import log
from socket_server.cluster import scripts
from socket_server.cluster.registry import SIGNED_OUT, ClusterStats, End, NodeStats, Online, age_s
from socket_server.cluster.single_flight import SingleFlight
from socket_server.errors import ClusterUnavailable
from socket_server.inbox.redis.dedicated_connection import DedicatedConnection
from socket_server.inbox.redis.scripts import PREFIX
from socket_server.inbox.redis.store import TIMEOUT_S, connect, explain
from socket_server.sessions import SessionManager, Stats
from socket_server.transport.socketio.connection import Connection

_log = log.logger("Server")

# A node that has not renewed for LEASE_S is forgotten at the next renewal of another, so within LEASE_S + RENEW_S and the
# time that its connections take; the contract wants 15 s.
LEASE_S = 9.0
RENEW_S = 2.0
# For how long a new connection waits to be counted before it is greeted all the same.
SETTLE_S = 2.0
# What is limited by address is known to the others so late at most: strangers who come and go are gathered.
_GATHER_S = 0.05
_RETRY_S = 0.5  # while Redis cannot be reached
# Of one batch, and of one step in forgetting a node: some milliseconds of Redis's time.
_BATCH = 250
_CALLS = 4  # of REST requests to Redis at once, beside the registry's own

_decode = msgspec.msgpack.Decoder(tuple[str, float, str, str, str, str]).decode


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_State = Sequence[str | bytes | float]  # what the script is told of one connection


class Addresses(Protocol):
    """What is limited by address (transport/gate.py), and so has to be known to all nodes."""

    def counts(self) -> Mapping[str, int]:
        """Return how many connections this node has from each address; empty where that is not limited."""

    def failed_elsewhere(self, address: str, count: int) -> None: ...

    def set_elsewhere(self, node: str, address: str, count: int) -> None: ...

    def set_all_elsewhere(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """counts: those of all other nodes; in place of what was known before."""

    def forget_elsewhere(self, node: str) -> None: ...


class RedisRegistry:
    """A Registry of all nodes that use the same Redis."""

    def __init__(self, url: str, sessions: SessionManager, node: str, max_per_user: int, addresses: Addresses) -> None:
        """Connects to nothing yet. Raises ConfigError for a URL that cannot be read."""
        self.node = node
        self._sessions = sessions
        self._max_per_user = max_per_user
        self._addresses = addresses
        self._client: Any  # whose types leave open whether it answers with bytes or text
        self._client, self._where = connect(url, _CALLS + 2)
        self._asking = threading.BoundedSemaphore(_CALLS)
        self._counted_together = SingleFlight(self._count)
        self._line = DedicatedConnection(self._client)  # of what is made known
        self._password = self._client.connection_pool.connection_kwargs.get("password") or ""
        self._update = self._client.register_script(scripts.UPDATE)
        self._forget_node = self._client.register_script(scripts.FORGET_NODE)
        self._sign_out = self._client.register_script(scripts.SIGN_OUT)
        self._stats = self._client.register_script(scripts.STATS)
        self._end: End = lambda *_: None

        self._lock = threading.Lock()  # of what follows; held for no I/O
        self._changed: dict[Connection, None] = {}  # since it was last made known, in order
        self._under_way: dict[Connection, None] = {}  # is being made known
        self._strays: list[tuple[bytes, bytes]] = []  # user and sid of what Redis knows, and nobody here
        self._waiting: dict[Connection, threading.Event] = {}
        self._failures: Counter[str] = Counter()  # by address, not yet made known
        self._counts: dict[str, int] = {}  # by address, the same
        self._wake = threading.Event()  # there is something to say
        self._hurry = threading.Event()  # somebody waits for it to be said
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

        self._trouble: str | None = "has not been reached yet"
        self._number = 0  # of the last update
        self._in_doubt = False  # whether what Redis knows of this node is what is there
        self._differed = False  # whether the last count did not agree
        self._certain_ms = 0  # when it was last certain, by Redis's clock
        self._clock_s = 0.0  # how far that is ahead of the one here that only goes forward; a little less, by the way to it

    # What changes here; from any thread, never waits

    def changed(self, connection: Connection) -> None:
        """A connection was registered, or is no longer (SessionManager tells)."""
        with self._lock:
            self._changed[connection] = None
        self._wake.set()
        self._hurry.set()

    def moved(self, connection: Connection) -> None:
        self.changed(connection)

    def failed(self, address: str) -> None:
        """An authentication failed here."""
        with self._lock:
            if self._trouble is None:
                self._failures[address] += 1
        self._wake.set()

    def counted(self, address: str, count: int) -> None:
        """This node now has so many connections from an address."""
        with self._lock:
            self._counts[address] = count
        self._wake.set()

    # The Registry

    def start(self, end: End) -> None:
        self._end = end
        self._sessions.watch(self.changed)
        self._thread = threading.Thread(target=self._run, name="registry", daemon=True)
        self._thread.start()

    def settle(self, connection: Connection) -> None:
        with self._lock:
            if self._trouble is not None or not (connection in self._changed or connection in self._under_way):
                return
            known = self._waiting.setdefault(connection, threading.Event())
        known.wait(SETTLE_S)

    def connections_of(self, user_id: str) -> list[Online]:
        found: Mapping[bytes, bytes] = self._ask(lambda: self._client.hgetall(_key(scripts.CONNECTIONS, user_id)))
        online = []
        for sid, text in found.items():
            node, since_ms, _, transport, address, agent = _decode(text)
            online.append(Online(sid.decode(), node, since_ms / 1000, transport, address, agent))
        return sorted(online, key=lambda each: each.since)

    def sign_out(self, user_id: str) -> int:
        count: int = self._ask(lambda: self._sign_out(args=[PREFIX, self.node, _bytes(user_id)]))
        self._end_all(user_id)
        return count

    def stats(self) -> ClusterStats:
        return self._counted_together()

    def _count(self) -> ClusterStats:
        users, *nodes = self._ask(lambda: self._stats(args=[PREFIX, self.node]))
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
        if self._trouble is None and (self._thread is None or not self._thread.is_alive()):  # Redis answers
            try:
                self._forget(self.node, itself=True)
            except (redis.RedisError, OSError):
                pass  # its lease will run out
        self._client.close()

    # What other nodes want of this one (feed.py)

    def hear(self, news: Mapping[bytes, bytes]) -> None:
        """Do what another node asks for, or take in what it says."""
        user_id = news.get(b"user", b"").decode("utf-8", "surrogatepass")
        node = news.get(b"node", b"").decode()
        match news[b"kind"]:
            case b"end":
                for connection in self._sessions.connections_of([user_id]).connections:
                    if connection.sid.encode() == news[b"sid"]:
                        self._end(connection, news[b"why"].decode())
            case b"sign out":
                # Who has signed in again since stays, however late this is heard.
                self._end_all(user_id, older_than_s=self._clock_s + time.monotonic() - float(news[b"at"]) / 1000)
            case b"gone":
                self._addresses.forget_elsewhere(node)
            case b"failed" if node != self.node:
                self._addresses.failed_elsewhere(news[b"address"].decode(), int(news[b"count"]))
            case b"address" if node != self.node:
                self._addresses.set_elsewhere(node, news[b"address"].decode(), int(news[b"count"]))

    def _end_all(self, user_id: str, older_than_s: float = 0.0) -> None:
        for connection in self._sessions.connections_of([user_id]).connections:
            if age_s(connection) >= older_than_s:
                self._end(connection, SIGNED_OUT)

    # Making known

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._make_known()
            except (redis.RedisError, OSError) as error:
                self._lose_touch(explain(error, self._password))
                self._stopping.wait(_RETRY_S)
            except Exception:
                _log.exception("unexpected error in the registry")
                self._lose_touch("is asked wrongly; the server's log says more")
                self._stopping.wait(_RETRY_S)
        try:
            while self._changed and self._trouble is None:
                self._make_known()  # the last to leave
        except (redis.RedisError, OSError):
            pass  # its lease will run out

    def _make_known(self) -> None:
        """Send the next batch, as soon as there is something to say, and at the latest to renew the lease."""
        if self._trouble is None and not (self._changed or self._strays or self._in_doubt):
            if not (self._failures or self._counts):
                self._wake.wait(RENEW_S)
            self._hurry.wait(_GATHER_S)
        self._wake.clear()
        self._hurry.clear()
        if self._in_doubt:
            self._compare()
            self._take_in()
        with self._lock:
            batch = self._under_way = _taken(self._changed)
            strays, self._strays = self._strays[:_BATCH], self._strays[_BATCH:]
            failures, counts = _taken(self._failures), _taken(self._counts)
        self._in_doubt = True  # until the answer is in
        states: list[_State] = [*map(self._state, batch), *(_ended(user, sid) for user, sid in strays)]
        before, now_ms, count, dead = self._line.run(
            self._update,
            PREFIX,
            self.node,
            round(LEASE_S * 1000),
            self._max_per_user,
            self._sessions.stats().connected_users,
            self._number + 1,
            len(states),
            len(failures),
            *chain.from_iterable(states),
            *_flat(failures),
            *_flat(counts),
        )
        self._clock_s = now_ms / 1000 - time.monotonic()
        self._in_doubt = before != self._number or self._differs(count)
        self._number += 1
        if not self._in_doubt:
            self._certain_ms = now_ms
        self._be_in_touch(batch)
        for node in dead:
            _log.warning("node %s is gone: its connections are no longer counted", node.decode())
            self._forget(node.decode())

    def _be_in_touch(self, batch: Iterable[Connection]) -> None:
        with self._lock:
            self._under_way = {}
            waiting = [self._waiting.pop(connection) for connection in batch if connection in self._waiting]
            before, self._trouble = self._trouble, None
        for each in waiting:
            each.set()
        if before is not None:
            _log.info("node %s is in touch with the others, through the Redis at %s", self.node, self._where)

    def _lose_touch(self, trouble: str) -> None:
        with self._lock:
            self._changed, self._under_way = self._under_way | self._changed, {}
            waiting, self._waiting = list(self._waiting.values()), {}
            before, self._trouble = self._trouble, trouble
        for each in waiting:
            each.set()
        if before != trouble and not self._stopping.is_set():
            _log.error("node %s is out of touch with the others: the Redis at %s %s", self.node, self._where, trouble)

    def _state(self, connection: Connection) -> _State:
        """Return what the script is told of a connection, as it is now."""
        user = _bytes(connection.user_id or "")
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

    # When Redis knows something else than what is there

    def _compare(self) -> None:
        """Find out what Redis knows of this node, and mark what has to be said again."""
        known: Mapping[bytes, bytes] = self._client.hgetall(scripts.NODE + self.node)
        addresses: Mapping[bytes, bytes] = self._client.hgetall(scripts.ADDRESSES + self.node)
        present = {connection.sid.encode(): connection for connection in self._sessions.everyone()}
        with self._lock:
            self._changed |= dict.fromkeys(present[sid] for sid in present.keys() - known.keys())
            self._strays = [(user, sid) for sid, user in known.items() if sid not in present]
            self._counts = {address.decode(): 0 for address in addresses} | dict(self._addresses.counts())

    def _take_in(self) -> None:
        """Take in what the others have said while Redis may not have known of this node."""
        signed_out = self._client.zrangebyscore(scripts.SIGNED_OUT, self._certain_ms, "+inf", withscores=True)
        now_s, microseconds = self._client.time()
        for user, at_ms in signed_out:
            self._end_all(user.decode("utf-8", "surrogatepass"), older_than_s=now_s + microseconds / 1e6 - at_ms / 1000)
        counts: dict[str, dict[str, int]] = {}
        for node in self._client.zrange(scripts.NODES, 0, -1):
            name = node.decode()
            if name != self.node:
                found = self._client.hgetall(scripts.ADDRESSES + name)
                counts[name] = {address.decode(): int(count) for address, count in found.items()}
        self._addresses.set_all_elsewhere(counts)

    def _differs(self, count: int) -> bool:
        """Compare counts; two that differ twice in a row were not just on their way."""
        differs = not self._changed and count != self._sessions.stats().total_connections
        before, self._differed = self._differed, differs
        return differs and before

    def _forget(self, node: str, *, itself: bool = False) -> None:
        while self._forget_node(args=[PREFIX, node, _BATCH, "1" if itself else ""]):
            pass

    # What can go wrong

    def _ask(self, call: Callable[[], Any]) -> Any:
        """Raises ClusterUnavailable for whatever Redis, or the way to it, says; at once where that is known."""
        self.check()
        if not self._asking.acquire(timeout=TIMEOUT_S):
            raise ClusterUnavailable(f"the Redis at {self._where} does not keep up: look at its load (SLOWLOG, CPU)")
        try:
            return call()
        except (redis.RedisError, OSError) as error:
            raise ClusterUnavailable(f"the Redis at {self._where} {explain(error, self._password)}") from None
        finally:
            self._asking.release()


def _taken(waiting: dict[_Key, _Value]) -> dict[_Key, _Value]:
    """Take out what has waited longest, as much as one batch holds; return it."""
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


def _key(begin: str, name: str) -> bytes:
    return begin.encode() + _bytes(name)


def _bytes(text: str) -> bytes:
    # A token may name a user with a lone surrogate; nobody can broadcast to such a one.
    return text.encode("utf-8", "surrogatepass")
