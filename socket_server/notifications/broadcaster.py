"""The way of a notification: accept, store (which gives the offset), deliver, report.

Groups of broadcasts are stored one after the other and enqueued in that order, so that every connection gets increasing
offsets, however many publishers there are. While one group is written to the connections the next is stored.

A publisher is answered when its broadcast is stored and enqueued. If the process is killed before it is written, the
clients receive it from their inboxes when they reconnect; except what is not kept (`ttl` 0, or a memory inbox).
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from socket_server import log
from socket_server.errors import InboxUnavailable, RequestError
from socket_server.inbox.inbox import Appended, Claim, DeliveryCount, Entry, Inbox, Record, Repeat
from socket_server.notifications.delivery_queue import MAX_DIRECT_CONNECTIONS, Batch, DeliveryQueue
from socket_server.notifications.group_commit import GroupCommit, Post
from socket_server.notifications.live_delivery import LiveDelivery
from socket_server.notifications.notification import Broadcast
from socket_server.notifications.report import Report, Result, delivered, key_in_use, repeated
from socket_server.sessions import Audience, SessionManager
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.fanout import FanOut
from socket_server.transport.socketio.packets import Packet

_log = log.logger("Broadcast")

_Key = tuple[str, str]  # the owner of an idempotency key, and the key


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
        """head: the offset after which this process delivers. fan_out: writes to the connections.

        certain: False if the head is a guess because the store did not answer. Until start_at() nothing is stored then: it
        would be delivered before what other processes have stored.
        """
        self._sessions = sessions
        self._inbox = inbox
        self._certain = certain
        self._queue = DeliveryQueue(fan_out or FanOut())
        self._delivery = LiveDelivery(sessions, self._queue, head)
        self._group_commit = GroupCommit(self._store)
        self._keys_in_use: set[_Key] = set()  # idempotency keys of requests that are not answered yet
        self._keys_lock = threading.Lock()

    @property
    def head(self) -> int:
        """The newest offset that was written to, or is enqueued for, the connections of its users."""
        return self._delivery.head

    def start_at(self, head: int) -> None:
        """Deliver after this offset, in place of a head that was a guess. Connected clients reconnect and recover."""
        with self._group_commit.store_lock:
            self._delivery.restart_at(head)
            self._certain = True

    def admit(self, user_id: str, connection: Connection) -> tuple[int, Connection | None]:
        """Register a connection and return the head: the connection gets everything after it, and nothing up to it.

        Return also the user's oldest connection, if that had to be evicted.
        """
        return self._delivery.admit(user_id, connection)

    def send(self, broadcast: Broadcast, owner: str = "") -> Report:
        """Store a broadcast and deliver it to the connections of its users.

        Raises InboxUnavailable; RequestError 409 or 422 for an idempotency key that is in use.
        """
        result = self.send_all([broadcast], owner)[0]
        if isinstance(result, RequestError):
            raise result
        return result

    def send_all(self, broadcasts: Sequence[Broadcast], owner: str = "") -> list[Result]:
        """Store broadcasts together and deliver them in this order.

        owner: whose idempotency keys they are; the same key of another owner is another key.
        Raises InboxUnavailable: then none of them is known to be stored. Those that are stored are delivered later.
        """
        keys = {(owner, broadcast.key) for broadcast in broadcasts if broadcast.key is not None}
        conflicts = self._reserve(keys) if keys else keys
        try:
            if not conflicts:
                return self._send(Post(broadcasts, owner))
            accepted = [each for each in broadcasts if (owner, each.key) not in conflicts]
            results = iter(self._send(Post(accepted, owner)) if accepted else ())
        finally:
            self._keys_in_use -= keys - conflicts
        return [key_in_use(each.key) if (owner, each.key) in conflicts else next(results) for each in broadcasts]

    def catch_up(self) -> None:
        """Enqueue what is stored and was not delivered: by an append whose answer was lost, or by another process (before
        or after a reload). Raises InboxUnavailable."""
        with self._flush_if_killed():
            self._queue.submit(self._group_commit.run(Post(), and_next=True))

    def deliver(self, records: Sequence[Record]) -> None:
        """Deliver what other nodes have stored, oldest first; records up to the head are skipped."""
        with self._flush_if_killed():
            with self._group_commit.store_lock:
                new = [each for each in records if each.offset > self.head]
                if not new:
                    return
                batch = Batch()
                self._delivery.enqueue_records(batch, new, complete=new[0].before <= self.head)
            self._queue.submit(batch)

    def send_at_head(self, connection: Connection, encode: Callable[[int], Packet]) -> None:
        """Send a connection what encode(head) returns: after everything up to that head, before anything newer.

        Waits for nothing but this connection's own pending packets, which are written with it.
        """
        with self._flush_if_killed():
            self._delivery.send_at_head(connection, encode)

    def wind_down(self) -> None:
        """Write everything that is enqueued. From now on each broadcast is written before its publisher is answered."""
        self._queue.close()

    def _send(self, post: Post) -> list[Result]:
        with self._flush_if_killed():
            batch = self._group_commit.run(post)
            missed = self._queue.submit(batch, may_block=post.connections > MAX_DIRECT_CONNECTIONS)
        return self._report(post, missed)

    @contextmanager
    def _flush_if_killed(self) -> Iterator[None]:
        """If the calling greenlet is killed between enqueueing and submitting, leave its packets to the flusher."""
        try:
            yield
        except InboxUnavailable:
            raise
        except BaseException:
            self._queue.start_flusher()
            raise

    def _reserve(self, keys: set[_Key]) -> set[_Key]:
        """Mark idempotency keys as in use; return those that other requests are using now."""
        with self._keys_lock:
            conflicts = keys & self._keys_in_use
            self._keys_in_use |= keys
        return conflicts

    def _store(self, posts: Sequence[Post]) -> None:
        """Store posts together, enqueue them, and set their outcomes. Called under the store lock."""
        if not self._certain:
            raise InboxUnavailable("the inbox has not been reached since this server was started")
        started = time.perf_counter()
        for post in posts:
            post.entries = [self._entry(broadcast, post.owner) for broadcast in post.broadcasts]
        entries = [entry for post in posts for entry in post.entries]
        appended = self._inbox.append(entries, self.head)
        while appended.more:
            self._deliver_foreign(appended)
            appended = self._inbox.append(entries, self.head)
        _log.debug("stored=%d stored_ms=%.2f", len(entries), (time.perf_counter() - started) * 1000)

        if appended.foreign_records or not appended.complete:
            self._deliver_foreign(appended)
        try:
            self._enqueue(posts, appended)
        except Exception:
            self._queue.start_flusher()  # for those that are enqueued
            raise

    def _enqueue(self, posts: Sequence[Post], appended: Appended) -> None:
        entries = [entry for post in posts for entry in post.entries]
        batch = Batch()
        audiences = iter(
            self._delivery.enqueue(
                batch,
                [
                    (outcome, entry.notification, entry.user_ids)
                    for outcome, entry in zip(appended.outcomes, entries, strict=True)
                    if not isinstance(outcome, Repeat)
                ],
            )
        )
        at = 0
        for post in posts:
            end = at + len(post.broadcasts)
            post.outcomes, post.all_nodes = appended.outcomes[at:end], appended.counts[at:end]
            post.audiences = [None if isinstance(outcome, Repeat) else next(audiences) for outcome in post.outcomes]
            post.batch, at = batch, end

    def _deliver_foreign(self, appended: Appended) -> None:
        """Deliver what other processes have stored, before what is stored now."""
        batch = Batch()
        self._delivery.enqueue_records(batch, appended.foreign_records, complete=appended.complete)
        self._queue.submit(batch)

    def _entry(self, broadcast: Broadcast, owner: str) -> Entry:
        claim = None
        if broadcast.key is not None:
            # The answer is stored together with the notification, so before the delivery: the counts that are expected now.
            # They are amended if they turn out wrong.
            audience = self._sessions.connections_of(broadcast.user_ids)
            expected = DeliveryCount(audience.users, len(audience.connections))
            stored_key = f"{owner}/{broadcast.key}" if owner else broadcast.key
            former_key = broadcast.key if owner else None  # keys of version 1 had no owner
            claim = Claim(stored_key, broadcast.digest, expected.encode(), former_key)
        return Entry(broadcast.user_ids, broadcast.notification, broadcast.ttl_s, claim)

    def _report(self, post: Post, missed: frozenset[Connection]) -> list[Result]:
        """Return the result of each broadcast. missed: the connections that are known not to have taken theirs."""
        results: list[Result] = []
        answers: dict[int, bytes] = {}  # offset -> what is stored under its key
        for at, (broadcast, entry, outcome, audience) in enumerate(
            zip(post.broadcasts, post.entries, post.outcomes, post.audiences, strict=True)
        ):
            if isinstance(outcome, Repeat):
                results.append(repeated(broadcast, outcome, answers.get(outcome.offset, outcome.answer)))
                continue
            assert isinstance(audience, Audience)
            all_nodes = post.all_nodes[at] if post.all_nodes else None
            count = delivered(audience, missed, all_nodes)
            if entry.claim is not None:
                stored = entry.claim.answer if all_nodes is None else all_nodes.encode()
                answers[outcome] = self._amend(entry.claim.key, stored, count, outcome)
            results.append(Report(count.users, count.connections, broadcast.requested_users, outcome))
            _log.debug(
                "id=%d users=%d delivered=%d sockets=%d",
                outcome,
                broadcast.requested_users,
                count.users,
                count.connections,
            )
        return results

    def _amend(self, key: str, stored: bytes, count: DeliveryCount, offset: int) -> bytes:
        """Replace the answer stored under a key if the counts differ from it; return the right answer."""
        answer = count.encode()
        if answer != stored:
            try:
                self._inbox.amend(key, answer)
            except InboxUnavailable as error:
                # The notification is stored and delivered; only the counts that a repeat is answered stay as expected.
                _log.warning("the stored answer of id=%d keeps the expected counts: %s", offset, error)
        return answer
