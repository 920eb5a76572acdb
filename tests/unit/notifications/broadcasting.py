"""A broadcaster with recorded connections, stores that are slow or lose answers, and publishers at the same time."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from socket_server.errors import RequestError
from socket_server.inbox.inbox import Appended, Entry, Inbox, InboxUnavailable, Page, Retention
from socket_server.inbox.memory import MemoryInbox
from socket_server.notifications.broadcaster import Broadcaster
from socket_server.notifications.notification import Broadcast
from socket_server.notifications.report import Result
from socket_server.sessions import SessionManager
from tests.unit.fakes import RecordingSession, connection


def online(
    *users: str, broken: tuple[str, ...] = (), inbox: Inbox | None = None
) -> tuple[Broadcaster, dict[str, list[RecordingSession]]]:
    """Return a broadcaster with these users connected (named twice: two connections), and the sessions of each user."""
    sessions = SessionManager(max_per_user=20)
    recorded: dict[str, list[RecordingSession]] = {}
    for user in users:
        added, session = connection(broken=user in broken)
        sessions.add(user, added)
        recorded.setdefault(user, []).append(session)
    store = MemoryInbox(Retention()) if inbox is None else inbox
    return Broadcaster(sessions, store, store.open()), recorded


def broadcast(*user_ids: str, notification: Any = None, key: str | None = None, ttl_s: float | None = None) -> Broadcast:
    body = json.dumps(notification or {}).encode()
    return Broadcast(user_ids, len(user_ids), body, ttl_s, key, b"" if key is None else body)


def offsets(session: RecordingSession) -> list[int]:
    return [int(event[-1]) for event in session.events]


def kept(inbox: Inbox, user_id: str) -> Page:
    return inbox.since(user_id, 0, None, 1_000, 10**9)


class Slow:
    """An inbox whose appends wait until `permitted` is set; `batches` has the number of entries of each append."""

    def __init__(self, below: Inbox) -> None:
        self._below = below
        self.permitted = threading.Event()
        self.batches: list[int] = []
        self.failure: Exception | None = None  # of the appends from the second on

    def append(self, entries: Sequence[Entry], after: int | None = None) -> Appended:
        self.batches.append(len(entries))
        assert self.permitted.wait(30)
        if self.failure is not None and len(self.batches) > 1:
            raise self.failure
        return self._below.append(entries, after)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)


class Publishers:
    """Threads that broadcast at the same time, and the outcome of each, in the order in which they were started."""

    def __init__(self, broadcaster: Broadcaster, inbox: Slow) -> None:
        self._broadcaster = broadcaster
        self._inbox = inbox
        self._threads: list[threading.Thread] = []
        self.outcomes: dict[int, Result | InboxUnavailable] = {}

    def send(self, given: Broadcast) -> None:
        """Start to send, and return when the broadcast is being stored or waits to be stored."""
        number = len(self._threads)

        def run() -> None:
            try:
                self.outcomes[number] = self._broadcaster.send(given)
            except (RequestError, InboxUnavailable) as error:
                self.outcomes[number] = error

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()
        if number == 0:
            until(lambda: self._inbox.batches)
        else:
            until(lambda: len(self._broadcaster._group_commit._waiting) + len(self.outcomes) == number)

    def join(self) -> list[Result | InboxUnavailable]:
        self._inbox.permitted.set()
        for thread in self._threads:
            thread.join()
        return [self.outcomes[number] for number in range(len(self._threads))]


def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.001)


def held_up(session: RecordingSession) -> tuple[threading.Event, threading.Event]:
    """Block writes to a session. Return an event that is set when a write has begun, and one that lets writes continue."""
    writing, go_on = threading.Event(), threading.Event()
    send = session.send

    def send_slowly(packet: Any) -> bool:
        writing.set()
        assert go_on.wait(10)
        return send(packet)

    session.send = send_slowly  # type: ignore[method-assign]
    return writing, go_on


class Forgetful:
    """An inbox that stores its entries and, if `mute`, loses the answer."""

    def __init__(self, below: Inbox) -> None:
        self._below = below
        self.mute = False

    def append(self, entries: Sequence[Entry], after: int | None = None) -> Appended:
        appended = self._below.append(entries, after)
        if self.mute:
            raise InboxUnavailable("the answer was lost")
        return appended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)
