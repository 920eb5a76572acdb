"""Publishers that are killed at random moments, on gevent: `python -m tests.unit.notifications.killed SECONDS SEED`.

In the end each connection has got everything that was stored for its user, once and in order; or it was closed, so that its
client recovers. Prints the number of kills and of connections for which that does not hold.
"""

from gevent import monkey

monkey.patch_all()

import itertools  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Sequence  # noqa: E402

import gevent  # noqa: E402

from socket_server.inbox.inbox import Appended, Entry, InboxUnavailable, Retention  # noqa: E402
from socket_server.inbox.memory import MemoryInbox  # noqa: E402
from socket_server.notifications.broadcaster import Broadcaster  # noqa: E402
from socket_server.notifications.notification import Broadcast  # noqa: E402
from socket_server.sessions import SessionManager  # noqa: E402
from socket_server.transport.socketio.connection import Connection  # noqa: E402
from socket_server.transport.socketio.fanout import FanOut, PacketRun  # noqa: E402
from tests.unit.fakes import RecordingSession, connection  # noqa: E402

USERS = 1_500
PUBLISHERS = 30


class SlowInbox(MemoryInbox):
    """Yields while it stores, and fails at times."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__(Retention())
        self._dice = dice
        self.stored: list[tuple[int, tuple[str, ...]]] = []

    def append(self, entries: Sequence[Entry], after: int | None = None) -> Appended:
        gevent.sleep(self._dice.choice((0, 0, 0.001)))
        if self._dice.random() < 0.03:
            raise InboxUnavailable("at times it fails")
        appended = super().append(entries, after)
        for entry, outcome in zip(entries, appended.outcomes, strict=True):
            assert isinstance(outcome, int)
            self.stored.append((outcome, entry.user_ids))
        return appended


class SlowFanOut(FanOut):
    """Yields between the writes."""

    def write(self, connections: Sequence[Connection], runs: Sequence[PacketRun]) -> list[Connection]:
        missed = []
        for each, run in zip(connections, runs, strict=True):
            if each.sid.endswith("7"):
                gevent.sleep(0)
            missed += super().write([each], [run])
        return missed


def main(seconds: float, seed: int) -> int:
    dice = random.Random(seed)
    sessions, inbox = SessionManager(5), SlowInbox(dice)
    broadcaster = Broadcaster(sessions, inbox, inbox.open(), SlowFanOut())
    recorded: dict[str, RecordingSession] = {}
    for number in range(USERS):
        made, session = connection()
        broadcaster.admit(str(number), made)
        recorded[str(number)] = session

    def publish() -> None:
        while True:
            first, count = dice.randrange(USERS), dice.choice((1, 3, 300, 1_200))
            users = tuple(str(number) for number in range(first, min(USERS, first + count)))
            try:
                broadcaster.send(Broadcast(users, len(users), b"{}", None))
            except InboxUnavailable:
                gevent.sleep(0)

    publishers = [gevent.spawn(publish) for _ in range(PUBLISHERS)]
    ends, kills = time.monotonic() + seconds, 0
    for victim in itertools.cycle(range(PUBLISHERS)):
        gevent.sleep(dice.choice((0, 0.001, 0.003)))
        publishers[victim].kill(block=False)
        publishers[victim] = gevent.spawn(publish)
        kills += 1
        if time.monotonic() > ends:
            break
    gevent.killall(publishers)
    waiting = broadcaster._group_commit._waiting
    with gevent.Timeout(20):
        while broadcaster._queue.pending_bytes:  # no publisher is left; the flusher writes the rest
            gevent.sleep(0.01)

    due: dict[str, list[int]] = {user: [] for user in recorded}
    for offset, users in inbox.stored:
        for user in users:
            due[user].append(offset)
    faults = 0
    for user, session in recorded.items():
        got = [int(event[-1]) for event in session.events]
        faults += got != (due[user][: len(got)] if session.closed else due[user])
    still = sum(not session.closed for session in recorded.values())
    print(f"kills={kills} stored={len(inbox.stored)} open={still} faults={faults} waiting={len(waiting)}")
    return 1 if faults or waiting or not kills else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2])))
