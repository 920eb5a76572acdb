"""The way of a notification: accept -> store (which gives it its offset) -> deliver -> report.

One batch after the other is stored, and written out in the same order, so that every connection sees offsets grow, however
many publish. Publishers that come meanwhile make up the next batch: together they cost one commit, and one write to each
connection. While a large broadcast is written out, the next is stored.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from socket_server import log
from socket_server.errors import RequestError
from socket_server.inbox.inbox import Appended, Claim, Entry, Inbox, InboxUnavailable, Reach, Record, Repeat
from socket_server.notifications.notification import Broadcast
from socket_server.sessions import Audience, SessionManager
from socket_server.transport import packets
from socket_server.transport.connection import Connection
from socket_server.transport.fanout import Delivery, FanOut
from socket_server.transport.turns import Turn, let_arrive

_log = log.logger("Broadcast")

# Posts of up to so many users, taken together, share a commit. Beyond that it costs little beside the writing, and while
# the clients of one broadcast read it the next one had better be on its way.
_TOGETHER = 256


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a broadcast: users with a connection, connections written to, users asked for, and its offset."""

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

    __slots__ = ("broadcasts", "error", "results", "users")

    def __init__(self, broadcasts: Sequence[Broadcast]) -> None:
        self.broadcasts = broadcasts
        self.users = sum(len(broadcast.user_ids) for broadcast in broadcasts)
        self.results: list[Result] | None = None
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
        self._fan_out = fan_out or FanOut()
        self._turn = threading.Lock()  # of whoever stores
        self._delivering = threading.Lock()  # taken in turn, so that what is stored first goes out first
        self._waiting: list[_Post] = []
        self._moment = threading.Lock()  # in which an audience and the head belong together; held for no I/O
        self._under_way: set[str] = set()  # idempotency keys

    @property
    def head(self) -> int:
        """The newest offset that has gone out, or is going out, to those who are connected."""
        return self._head

    def start_at(self, head: int) -> None:
        """Deliver from this offset on, in place of a head that was a guess. Who is connected comes back and recovers."""
        with self._turn, self._delivering:
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
                return self._wait_for_turn(_Post(broadcasts))
            others = [each for each in broadcasts if each.key not in conflicts]
            results = iter(self._wait_for_turn(_Post(others)) if others else ())
        finally:
            self._under_way -= keys - conflicts
        return [_under_way(each.key) if each.key in conflicts else next(results) for each in broadcasts]

    def catch_up(self) -> None:
        """Deliver what is stored and has not gone out: where the answer of an append was lost, and what another process has
        stored meanwhile (the worker before a reload, finishing). Raises InboxUnavailable."""
        post = _Post(())
        self._waiting.append(post)
        with ExitStack() as turn:
            turn.enter_context(self._turn)
            self._serve_some(turn)
            if self._waiting:
                # Who came meanwhile would have to wake up first, behind all who are ready to run. Nobody waits for this
                # greenlet; a publisher's would let its own caller wait for another's fan-out.
                self._serve_some(turn)
        if post.error is not None:
            raise post.error

    def deliver(self, records: Sequence[Record]) -> None:
        """Deliver what other nodes have stored, oldest first; what has gone out is passed over."""
        with ExitStack() as turn:
            turn.enter_context(self._turn)
            new = [each for each in records if each.offset > self._head]
            if new:
                self._deliver(new, [], Appended((), complete=new[0].before <= self._head), turn.close)

    def in_turn(self, act: Callable[[int], object]) -> None:
        """Call act with the head while no notification is on its way: what it sends, which must not block, comes after all
        up to there and before all that is newer."""
        with self._turn, self._delivering:
            act(self._head)

    def _wait_for_turn(self, post: _Post) -> list[Result]:
        self._waiting.append(post)
        with ExitStack() as turn:
            turn.enter_context(self._turn)
            while post.results is None and post.error is None:
                self._serve_some(turn, post)
        if post.error is not None:
            raise post.error
        assert post.results is not None
        return post.results

    def _reserve(self, keys: set[str]) -> set[str]:
        """Take idempotency keys into use; return those that others are using now."""
        with self._moment:
            conflicts = keys & self._under_way
            self._under_way |= keys
        return conflicts

    def _serve_some(self, turn: ExitStack, own: _Post | None = None) -> None:
        """Serve those who wait longest by now, as many as are worth storing together. Called in turn.

        own: the caller's. Where that is all, and large, its turn ends once it is stored: the next is stored meanwhile.
        """
        if sum(post.users for post in self._waiting) < _TOGETHER:
            # Whose request has arrived joins this batch; on one core the inbox would answer before anybody else ran.
            let_arrive()
        posts = self._take()
        alone = posts == [own] and posts[0].users > _TOGETHER
        try:
            results = self._store_and_deliver(
                [broadcast for post in posts for broadcast in post.broadcasts], turn.close if alone else _nothing
            )
        except InboxUnavailable as error:
            refused = sum(len(post.broadcasts) for post in posts)
            if refused:
                _log.error("refused %d broadcasts: %s", refused, error)
            for post in posts:
                post.error = error
            return
        except Exception:
            # Who serves may have come for another's post: it is not his to raise.
            _log.exception("unexpected error in a broadcast")
            for post in posts:
                post.error = InboxUnavailable("the server failed; its log says why")
            return
        except BaseException:
            for post in posts:
                post.error = InboxUnavailable("the server is ending")
            raise
        at = 0
        for post in posts:
            post.results = results[at : at + len(post.broadcasts)]
            at += len(post.broadcasts)

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

    def _store_and_deliver(self, broadcasts: Sequence[Broadcast], stored_all: Callable[[], object]) -> list[Result]:
        """stored_all: called once they are stored, and certain to be the next to go out."""
        if not self._certain:
            raise InboxUnavailable("the inbox has not been reached since this server was started")
        started = time.perf_counter()
        entries = [self._entry(broadcast) for broadcast in broadcasts]
        appended = self._inbox.append(entries, self._head)
        while appended.more:
            self._deliver(appended.others, [], appended, _nothing)
            appended = self._inbox.append(entries, self._head)
        stored = time.perf_counter()
        audiences, missed = self._deliver(appended.others, broadcasts, appended, stored_all)
        results: list[Result] = []
        settled: dict[int, bytes] = {}  # offset -> the true answer under its key
        for at, (broadcast, entry, outcome, audience) in enumerate(
            zip(broadcasts, entries, appended.outcomes, audiences, strict=True)
        ):
            if audience is None:
                assert isinstance(outcome, Repeat)
                results.append(_repeated(broadcast, outcome, settled.get(outcome.offset, outcome.answer)))
                continue
            assert isinstance(outcome, int)
            everywhere = appended.reach[at] if appended.reach else None
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
        ended = time.perf_counter()
        _log.debug(
            "broadcasts=%d stored_ms=%.2f delivered_ms=%.2f",
            len(broadcasts),
            (stored - started) * 1000,
            (ended - stored) * 1000,
        )
        return results

    def _deliver(
        self,
        others: Sequence[Record],
        own: Sequence[Broadcast],
        appended: Appended,
        lined_up: Callable[[], object],
    ) -> tuple[list[Audience | None], set[Connection]]:
        """Write out what others have stored and then one's own; return each own one's audience (None: a repeat), and the
        connections that could not be written to. Called in turn.

        lined_up: called when it is certain that these are the next to go out.
        """
        with self._moment:
            left_behind = [] if appended.complete else self._leave_behind()
            deliveries: list[Delivery] = []
            for record in others:
                self._line_up(deliveries, record.offset, record.notification, record.user_ids)
            audiences: list[Audience | None] = []
            for broadcast, outcome in zip(own, appended.outcomes, strict=True):
                if isinstance(outcome, Repeat):
                    audiences.append(None)
                else:
                    audiences.append(self._line_up(deliveries, outcome, broadcast.notification, broadcast.user_ids))
        with self._delivering:
            lined_up()
            _let_recover(left_behind)
            return audiences, self._fan_out(deliveries)

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
            expected = Reach(audience.users, len(audience.connections))
            claim = Claim(broadcast.key, broadcast.digest, expected.encode())
        return Entry(broadcast.user_ids, broadcast.notification, broadcast.ttl_s, claim)

    def _settle(self, key: str, kept: bytes, reach: Reach, offset: int) -> bytes:
        """Keep the true answer, where the expected one has turned out wrong; return it."""
        answer = reach.encode()
        if answer != kept:
            try:
                self._inbox.amend(key, answer)
            except InboxUnavailable as error:
                # The notification is stored and delivered; only a repeat's counts would be those expected before.
                _log.warning("the answer of id=%d is kept as it was expected: %s", offset, error)
        return answer

    def _line_up(self, deliveries: list[Delivery], offset: int, notification: bytes, user_ids: Sequence[str]) -> Audience:
        audience = self._sessions.connections_of(user_ids)
        if audience.connections:
            deliveries.append((packets.encode_notification(notification, offset), audience.connections))
        self._head = max(self._head, offset)
        return audience


def _let_recover(connections: Sequence[Connection]) -> None:
    """Close these connections' transports: their clients come back, and go on from where they got to."""
    if connections:
        _log.warning("away from the store for too long: %d connections come back to recover", len(connections))
    turn = Turn()
    for connection in connections:
        connection.engine.close(reason="recovers from its inbox")
        turn.give_way()


def _nothing() -> None:
    pass


def reached(audience: Audience, missed: set[Connection], everywhere: Reach | None = None) -> Reach:
    """Return how many users and connections were written to, given the connections that could not be.

    audience: those of this node. everywhere: over all nodes, where there are several.
    """
    reach = everywhere or Reach(audience.users, len(audience.connections))
    lost = missed.intersection(audience.connections) if missed else missed
    if not lost:
        return reach
    whole = {connection.user_id for connection in lost} - {
        connection.user_id for connection in audience.connections if connection not in lost
    }
    return Reach(max(0, reach.users - len(whole)), max(0, reach.connections - len(lost)))


def _repeated(broadcast: Broadcast, repeat: Repeat, answer: bytes) -> Result:
    if repeat.digest == broadcast.digest:
        reach = Reach.decode(answer)
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
