"""What is sent arrives: in order, nothing lost, nothing doubled, also while a connection changes its transport."""

import dataclasses
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import requests

from tests.clients.official import TRANSPORTS, Clients, Script, latency
from tests.clients.test_authentication import PLACES
from tests.servers import RunningServer, mint, wait_for

# Makes the upgrade take a while, with several polls during it.
LATENCY_MS, WEBSOCKET_LATENCY_MS = 10, 60
NOTIFICATIONS = 200


class BackEnds:
    """Several back ends that send numbered notifications to the same users, all at the same time, until told to stop."""

    def __init__(self, server: RunningServer, users: list[str], count: int = 4) -> None:
        self._server = server
        self._users = users
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(count)
        self._sent: list[tuple[int, int, int]] = []  # offset, number, connections written to
        self._work = [self._pool.submit(self._send) for _ in range(count)]

    def _send(self) -> None:
        with requests.Session() as session:
            back_end = dataclasses.replace(self._server, session=session)
            while not self._stop.is_set():
                number = next(self._numbers)
                answer = back_end.broadcast(self._users, {"data": {"number": number}}).json()
                self._sent.append((int(answer["id"]), number, answer["totalSockets"]))

    def sent_to_all(self) -> int:
        """How many were written to all of the users' connections, one each."""
        return sum(connections == len(self._users) for _, _, connections in list(self._sent))

    def stop(self) -> list[tuple[int, int]]:
        """Return the offset and the number of each, in the order of their offsets."""
        self._stop.set()
        self._pool.shutdown()
        for each in self._work:
            each.result()
        return sorted((offset, number) for offset, number, _ in self._sent)


def test_nothing_is_lost_doubled_or_disordered_while_connections_upgrade(
    server: RunningServer, own_clients: Clients, node: str, transport: str
) -> None:
    users = [f"user-{index}" for index, _ in enumerate(PLACES)]
    with latency(node, server.port, LATENCY_MS, WEBSOCKET_LATENCY_MS) as port:
        back_ends = BackEnds(server, users)
        connections = [
            own_clients.open(f"http://127.0.0.1:{port}", **TRANSPORTS[transport], **credentials(user, mint(user)))
            for user, credentials in zip(users, PLACES.values(), strict=True)
        ]
        wait_for(lambda: back_ends.sent_to_all() >= NOTIFICATIONS, what=f"{NOTIFICATIONS} notifications")
        sent = back_ends.stop()
        for connection in connections:
            wait_for(lambda c=connection: [n.args[1] for n in c.all("notification")[-1:]] == [str(sent[-1][0])])
            arrived = connection.all("notification")
            # All since it was authenticated, which was before the last so many were sent.
            assert len(arrived) >= NOTIFICATIONS
            received = [(int(offset), n["data"]["number"]) for n, offset in (each.args for each in arrived)]
            assert received == sent[-len(received) :]
            assert not connection.all("disconnect")
        offsets = [offset for offset, _ in sent]
        assert all(before < after for before, after in itertools.pairwise(offsets))
        seen = {each.transport for connection in connections for each in connection.all("notification")}
        assert seen == {"default": {"polling", "websocket"}}.get(transport, {transport})
        if transport == "default":
            for connection in connections:
                connection.wait("upgrade")
        # One more, to quiet connections: had anything been doubled, it would have come before this.
        server.broadcast(users, {"title": "the last"})
        for connection in connections:
            wait_for(lambda c=connection: c.all("notification")[-1].args[0] == {"title": "the last"})
            assert len(connection.all("notification")) <= len(sent) + 1
            assert len(connection.all("upgrade")) == (transport == "default")


def test_a_notification_arrives_exactly_as_it_was_sent(
    shared_server: RunningServer, clients: Clients, transport: str
) -> None:
    notification = {
        "actionKey": "updateTask",
        "title": {"he": "כותרת עם 🎉 ו\u2028שורה", "en": 'Quotes " and \\ and \u0000'},
        "body": "פסקה\nשנייה",
        "metadata": {"url": "/lev", "priority": "high", "nested": [1, 2.5, -3e-7, None, True, {"": []}]},
        "data": {"big": 9007199254740991, "text": "x" * 100_000, "separator": "\x1e"},
    }
    connection = clients.open(shared_server.url, **TRANSPORTS[transport], auth={"token": mint(transport)})
    connection.wait("auth_success")
    shared_server.broadcast([transport], notification)
    assert connection.wait("notification").args[0] == notification


def test_three_hundred_clients_connect_and_each_receives_the_broadcast_once(
    shared_server: RunningServer, node: str
) -> None:
    users = [f"crowd-{number}" for number in range(300)]
    crowd = Script(node, "crowd.mjs", shared_server.url)
    try:
        crowd.write({user: mint(user) for user in users})
        crowd.line(event="all authenticated", timeout_s=40)
        assert shared_server.broadcast(users, {"title": "one"}).json()["totalSockets"] == len(users)
        received = crowd.line(event="all received", timeout_s=20)["value"]
        assert received == dict.fromkeys(users, 1)
        crowd.line(event="all upgraded", timeout_s=20)
        assert [line for line in crowd.lines if line["event"] == "trouble"] == []
    finally:
        crowd.stop()
    shared_server.wait_for_connections(0)
