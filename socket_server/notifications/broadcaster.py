"""The way of a notification: accept -> store (which gives it its offset) -> deliver -> report.

One batch after the other is stored, and lined up to go out in the same order, so that every connection sees offsets grow,
however many publish. Publishers that come meanwhile make up the next batch: together they cost one commit. While one is
written out the next is stored; and what waits to go out to the same connections goes out together (outgoing.py).

What is stored and has its place in the line is reported, and who publishes need not wait until it is written out: if this
process is killed within these milliseconds, it is in the inbox; but for what is not kept (`ttl` 0), or only here.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from socket_server import log
from socket_server.errors import RequestError
from socket_server.inbox.inbox import Claim, DeliveryCount, Entry, Inbox, InboxUnavailable, Record, Repeat
from socket_server.notifications.delivery_queue import Batch, Lot, Outgoing
from socket_server.notifications.notification import Broadcast
from socket_server.runtime.time_slice import TimeSlice, poll_event_loop
from socket_server.sessions import Audience, SessionManager
from socket_server.transport.socketio import packets
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.fanout import FanOut

_log = log.logger("Broadcast")

# Posts of up to so many users, taken together, share a commit, and then their writes: 16 to 1,000 each. One more would save
# little, and the first had better be on its way.
_TOGETHER = 16_384

# Before posts to so few users are stored, whose request has arrived joins in.
_FEW = 1_024


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a broadcast: users with a connection, connections it goes to, users asked for, and its offset.

    What was written before the report (small ones mostly are) counts no connection that did not take it.
    """

    delivered_to: int
    total_sockets: int
    requested_users: int
    offset: int

    def to_json(self) -> dict[str, Any]:
        return {
            "success": True,
            "deliveredTo": self.delivered_to,
            "totalSockets": self.total_sockets,
            "requestedUsers": self.requested_users,
            "id": str(self.offset),
        }


Result = Report | RequestError


class _Post:
    """What one publisher waits for."""

    __slots__ = ("audiences", "batch", "broadcasts", "entries", "error", "outcomes", "reach", "users")

    # Of each broadcast, once they are stored:
    entries: Sequence[Entry]
    outcomes: Sequence[int | Repeat]
    audiences: Sequence[Audience | None]  # who is connected; None: a repeat
    reach: Sequence[DeliveryCount]  # over all nodes; empty: there is one

    def __init__(self, broadcasts: Sequence[Broadcast]) -> None:
        self.broadcasts = broadcasts
        self.users = sum([len(broadcast.user_ids) for broadcast in broadcasts])
        self.batch: Batch | None = None  # where it stands in the line, once it is stored
        self.error: InboxUnavailable | None = None


class Broadcaster:
    """Stores notifications and delivers them to the connections of their users."""

    def __init__(
        self,
        sessions: SessionManager,
        inbox: Inbox,
        head: int,
        fan_out: FanOut | None = None,
        *,
        certain: bool = True,
    ) -> None:
        """head: the offset from which on this process delivers. fan_out: what writes to the connections.

        certain: False where the head is a guess, because the store could not be asked: until start_at() nothing is stored,
        for it might go out before what others have stored.
        """
        self._sessions = sessions
        self._inbox = inbox
        self._head = head
        self._certain = certain
        self._outgoing = Outgoing(fan_out or FanOut())  # grows in turn, so that what is stored first goes out first
        self._turn = threading.Lock()  # of whoever stores
        self._waiting: list[_Post] = []
        self._moment = threading.Lock()  # in which an audience and the head belong together; held for no I/O
        self._under_way: set[str] = set()  # idempotency keys

    @property
    def head(self) -> int:
        """The newest offset that has gone out, or has its place in the line, to those who are connected."""
        return self._head

    def start_at(self, head: int) -> None:
        """Deliver from this offset on, in place of a head that was a guess. Who is connected comes back and recovers."""
        with self._turn, self._outgoing.at_rest():
            with self._moment:
                left_behind = self._leave_behind()
                self._head, self._certain = head, True
            _let_recover(left_behind)

    def admit(self, user_id: str, connection: Connection) -> tuple[int, Connection | None]:
        """Register a connection: from the returned offset on it is sent everything, what lies before it is not.

        Return also the user's oldest connection where it had to give way.
        """
        with self._moment:
            return self._head, self._sessions.add(user_id, connection)

    def send(self, broadcast: Broadcast) -> Report:
        """Store a broadcast and deliver it to whoever of its users is connected.

        Raises InboxUnavailable; RequestError 409 or 422 for an idempotency key that is in use.
        """
        result = self.send_all([broadcast])[0]
        if isinstance(result, RequestError):
            raise result
        return result

    def send_all(self, broadcasts: Sequence[Broadcast]) -> list[Result]:
        """Store broadcasts together and deliver them in this order.

        Raises InboxUnavailable: none of them is known to be stored. Those that are all the same go out later.
        """
        keys = {broadcast.key for broadcast in broadcasts if broadcast.key is not None}
        conflicts = self._reserve(keys) if keys else keys
        try:
            if not conflicts:
                return self._send(_Post(broadcasts))
            others = [each for each in broadcasts if each.key not in conflicts]
            results = iter(self._send(_Post(others)) if others else ())
        finally:
            self._under_way -= keys - conflicts
        return [_under_way(each.key) if each.key in conflicts else next(results) for each in broadcasts]

    def catch_up(self) -> None:
        """Deliver what is stored and has not gone out: where the answer of an append was lost, and what another process has
        stored meanwhile (the worker before a reload, finishing). Raises InboxUnavailable."""
        post = _Post(())
        with self._seen_through(post):
            self._waiting.append(post)
            with self._turn:
                if post in self._waiting:
                    self._store_some()
                if self._waiting:
                    # Who came meanwhile would have to wake up first, behind all who are ready to run. Nobody waits for
                    # this greenlet; a publisher's would let its own caller wait for another's commit.
                    self._store_some()
            self._outgoing.drain()
        if post.error is not None:
            raise post.error

    def deliver(self, records: Sequence[Record]) -> None:
        """Deliver what other nodes have stored, oldest first; what has gone out is passed over."""
        with self._seen_through():
            with self._turn:
                new = [each for each in records if each.offset > self._head]
                if not new:
                    return
                batch = self._line_up_others(new, complete=new[0].before <= self._head)
            self._outgoing.send_off(batch)

    def wind_down(self) -> None:
        """Wait until all that has been reported is written out, and from now on report nothing before."""
        self._outgoing.wind_down()

    def in_turn(self, act: Callable[[int], object]) -> None:
        """Call act with the head while no notification is on its way: what it sends, which must not block, comes after all
        up to there and before all that is newer."""
        with self._turn, self._outgoing.at_rest():
            act(self._head)

    def _send(self, post: _Post) -> list[Result]:
        with self._seen_through(post):
            self._waiting.append(post)
            with self._turn:
                while post.batch is None and post.error is None:
                    self._store_some()
            if post.error is not None:
                raise post.error
            assert post.batch is not None
            missed = self._outgoing.send_off(post.batch)
        return self._report(post, missed)

    @contextmanager
    def _seen_through(self, post: _Post | None = None) -> Iterator[None]:
        """Where the caller is ended in here, have somebody else write out what he has lined up, or what was for him."""
        try:
            yield
        except InboxUnavailable:
            raise
        except BaseException:
            if post in self._waiting:
                self._waiting.remove(post)  # nobody is left to be answered
            self._let_somebody_write()
            raise

    def _let_somebody_write(self) -> None:
        """Have written out what is in the line, and what is just being stored."""
        threading.Thread(target=self.in_turn, args=(_nothing,), daemon=True).start()

    def _reserve(self, keys: set[str]) -> set[str]:
        """Take idempotency keys into use; return those that others are using now."""
        with self._moment:
            conflicts = keys & self._under_way
            self._under_way |= keys
        return conflicts

    def _store_some(self) -> None:
        """Store for those who wait longest by now, as many as are worth storing together. Called in turn."""
        if sum(post.users for post in self._waiting) < _FEW:
            # Whose request has arrived joins this batch; on one core the inbox would answer before anybody else ran.
            poll_event_loop()
        posts = self._take()
        try:
            self._store(posts)
        except InboxUnavailable as error:
            refused = sum(len(post.broadcasts) for post in posts)
            if refused:
                _log.error("refused %d broadcasts: %s", refused, error)
            _tell(posts, error)
        except Exception:
            # Who stores may have come for another's post: it is not his to raise.
            _log.exception("unexpected error in a broadcast")
            _tell(posts, InboxUnavailable("the server failed; its log says why"))
            self._let_somebody_write()  # what is in the line already
        except BaseException:
            _tell(posts, InboxUnavailable("the server is ending"))
            raise

    def _take(self) -> list[_Post]:
        count = users = 0
        for post in self._waiting:
            users += post.users
            if count and users > _TOGETHER:
                break
            count += 1
        posts = self._waiting[:count]
        del self._waiting[:count]
        return posts

    def _store(self, posts: Sequence[_Post]) -> None:
        if not self._certain:
            raise InboxUnavailable("the inbox has not been reached since this server was started")
        started = time.perf_counter()
        for post in posts:
            post.entries = [self._entry(broadcast) for broadcast in post.broadcasts]
        entries = [entry for post in posts for entry in post.entries]
        appended = self._inbox.append(entries, self._head)
        while appended.more:
            self._outgoing.send_off(self._line_up_others(appended.others, complete=appended.complete))
            appended = self._inbox.append(entries, self._head)
        _log.debug("stored=%d stored_ms=%.2f", len(entries), (time.perf_counter() - started) * 1000)

        if appended.others or not appended.complete:
            self._outgoing.send_off(self._line_up_others(appended.others, complete=appended.complete))
        at = 0
        with self._moment, self._outgoing.lot() as lot:
            for post in posts:
                end = at + len(post.broadcasts)
                post.outcomes, post.reach = appended.outcomes[at:end], appended.reach[at:end]
                post.audiences = [
                    None
                    if isinstance(outcome, Repeat)
                    else self._address(lot, outcome, broadcast.notification, broadcast.user_ids)
                    for broadcast, outcome in zip(post.broadcasts, post.outcomes, strict=True)
                ]
                post.batch, at = lot.batch, end

    def _line_up_others(self, records: Sequence[Record], *, complete: bool) -> Batch:
        """Line up what others have stored; return the last batch of it. Called in turn."""
        with self._moment, self._outgoing.lot() as lot:
            left_behind = [] if complete else self._leave_behind()
            for record in records:
                self._address(lot, record.offset, record.notification, record.user_ids)
        _let_recover(left_behind)
        return lot.batch

    def _report(self, post: _Post, missed: frozenset[Connection]) -> list[Result]:
        """Return what becomes of a post. missed: the connections that could not be written to, as far as is known."""
        results: list[Result] = []
        settled: dict[int, bytes] = {}  # offset -> the true answer under its key
        for at, (broadcast, entry, outcome, audience) in enumerate(
            zip(post.broadcasts, post.entries, post.outcomes, post.audiences, strict=True)
        ):
            if audience is None:
                assert isinstance(outcome, Repeat)
                results.append(_repeated(broadcast, outcome, settled.get(outcome.offset, outcome.answer)))
                continue
            assert isinstance(outcome, int)
            everywhere = post.reach[at] if post.reach else None
            reach = reached(audience, missed, everywhere)
            if entry.claim is not None:
                kept = entry.claim.answer if everywhere is None else everywhere.encode()
                settled[outcome] = self._settle(entry.claim.key, kept, reach, outcome)
            results.append(Report(reach.users, reach.connections, broadcast.requested_users, outcome))
            _log.debug(
                "id=%d users=%d delivered=%d sockets=%d",
                outcome,
                broadcast.requested_users,
                reach.users,
                reach.connections,
            )
        return results

    def _leave_behind(self) -> list[Connection]:
        """Deliver nothing more to those who are connected now: what lies between the head and what comes next is not to be
        had from the store's log any more, only from their inboxes."""
        connections = self._sessions.everyone()
        for connection in connections:
            self._sessions.remove(connection)
        return connections

    def _entry(self, broadcast: Broadcast) -> Entry:
        claim = None
        if broadcast.key is not None:
            # The answer is stored with the notification, so before its delivery: as it will be unless somebody comes or
            # goes just now, in which case it is amended.
            audience = self._sessions.connections_of(broadcast.user_ids)
            expected = DeliveryCount(audience.users, len(audience.connections))
            claim = Claim(broadcast.key, broadcast.digest, expected.encode())
        return Entry(broadcast.user_ids, broadcast.notification, broadcast.ttl_s, claim)

    def _settle(self, key: str, kept: bytes, reach: DeliveryCount, offset: int) -> bytes:
        """Keep the true answer, where the expected one has turned out wrong; return it."""
        answer = reach.encode()
        if answer != kept:
            try:
                self._inbox.amend(key, answer)
            except InboxUnavailable as error:
                # The notification is stored and delivered; only a repeat's counts would be those expected before.
                _log.warning("the answer of id=%d is kept as it was expected: %s", offset, error)
        return answer

    def _address(self, lot: Lot, offset: int, notification: bytes, user_ids: Sequence[str]) -> Audience:
        audience = self._sessions.connections_of(user_ids)
        if audience.connections:
            lot.put(packets.encode_notification(notification, offset), audience.connections)
        self._head = max(self._head, offset)
        return audience


def _let_recover(connections: Sequence[Connection]) -> None:
    """Close these connections' transports: their clients come back, and go on from where they got to."""
    if connections:
        _log.warning("away from the store for too long: %d connections come back to recover", len(connections))
    time_slice = TimeSlice()
    for connection in connections:
        connection.eio_socket.close(reason="recovers from its inbox")
        time_slice.maybe_yield()


def _nothing(head: int) -> None:
    pass


def _tell(posts: Sequence[_Post], error: InboxUnavailable) -> None:
    for post in posts:
        post.error = error


def reached(audience: Audience, missed: frozenset[Connection], everywhere: DeliveryCount | None = None) -> DeliveryCount:
    """Return how many users and connections were written to, given the connections that could not be.

    audience: those of this node. everywhere: over all nodes, where there are several.
    """
    reach = everywhere or DeliveryCount(audience.users, len(audience.connections))
    lost = missed.intersection(audience.connections) if missed else missed
    if not lost:
        return reach
    whole = {connection.user_id for connection in lost} - {
        connection.user_id for connection in audience.connections if connection not in lost
    }
    return DeliveryCount(max(0, reach.users - len(whole)), max(0, reach.connections - len(lost)))


def _repeated(broadcast: Broadcast, repeat: Repeat, answer: bytes) -> Result:
    if repeat.digest == broadcast.digest:
        reach = DeliveryCount.decode(answer)
        return Report(reach.users, reach.connections, broadcast.requested_users, repeat.offset)
    return RequestError(
        422,
        "Idempotency-Key was used for another request",
        "the body must be the same, byte for byte; send a new key with a new notification",
    )


def _under_way(key: str | None) -> RequestError:
    return RequestError(
        409, "A request with this Idempotency-Key is under way", f"repeat it once that is answered; the key is {key!r}"
    )
