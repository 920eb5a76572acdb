"""What is sent arrives: in order, nothing lost, nothing doubled, also while a connection changes its transport."""

import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor

import requests

from tests.clients.official import TRANSPORTS, Clients, Script, latency
from tests.clients.test_authentication import PLACES
from tests.servers import RunningServer, mint

LATENCY_MS = 40  # makes the upgrade take as long as it does between a phone and a server far away
NOTIFICATIONS = 200
BACK_ENDS = 4


def send_from_several_back_ends(server: RunningServer, users: list[str]) -> list[tuple[int, int]]:
    """Send the numbered notifications; return the offset and the number of each, in the order of their offsets."""

    def send(numbers: range) -> list[tuple[int, int]]:
        with requests.Session() as session:
            back_end = dataclasses.replace(server, session=session)
            answers = [(back_end.broadcast(users, {"data": {"number": number}}).json(), number) for number in numbers]
        assert all(answer["deliveredTo"] == answer["totalSockets"] == len(users) for answer, _ in answers), answers
        return [(int(answer["id"]), number) for answer, number in answers]

    with ThreadPoolExecutor(BACK_ENDS) as pool:
        parts = pool.map(send, [range(first, NOTIFICATIONS, BACK_ENDS) for first in range(BACK_ENDS)])
        return sorted(itertools.chain.from_iterable(parts))


def test_nothing_is_lost_doubled_or_disordered_while_connections_upgrade(
    shared_server: RunningServer, clients: Clients, node: str, transport: str
) -> None:
    users = [f"user-{index}" for index, _ in enumerate(PLACES)]
    with latency(node, shared_server.port, LATENCY_MS) as port:
        connections = [
            clients.open(f"http://127.0.0.1:{port}", **TRANSPORTS[transport], **credentials(user, mint(user)))
            for user, credentials in zip(users, PLACES.values(), strict=True)
        ]
        for connection in connections:
            connection.wait("auth_success")
        sent = send_from_several_back_ends(shared_server, users)
        for connection in connections:
            connection.wait("notification", NOTIFICATIONS)
            arrived = connection.all("notification")
            assert [(int(offset), n["data"]["number"]) for n, offset in (each.args for each in arrived)] == sent
            assert not connection.all("disconnect")
        offsets = [offset for offset, _ in sent]
        assert all(before < after for before, after in itertools.pairwise(offsets))
        seen = {each.transport for connection in connections for each in connection.all("notification")}
        assert seen == {"default": {"polling", "websocket"}}.get(transport, {transport})
        if transport == "default":
            assert all(connection.all("upgrade") for connection in connections)
        # A last one, sent to quiet connections: had anything been doubled, it would have come before this.
        shared_server.broadcast(users, {"data": {"number": NOTIFICATIONS}})
        for connection in connections:
            last = connection.wait("notification", NOTIFICATIONS + 1)
            assert last.args[0] == {"data": {"number": NOTIFICATIONS}}
            connection.close()
    shared_server.wait_for_connections(0)


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
    connection = clients.open(shared_server.url, **TRANSPORTS[transport], auth={"token": mint("123")})
    connection.wait("auth_success")
    shared_server.broadcast(["123"], notification)
    assert connection.wait("notification").args[0] == notification
    connection.close()
    shared_server.wait_for_connections(0)


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
