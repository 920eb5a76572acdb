"""The way of a notification: its offset, its users, its report; one order for every connection."""

import itertools
import json
import threading
from typing import Any

from socket_server.notifications.broadcaster import Broadcaster
from socket_server.notifications.notification import Broadcast
from socket_server.notifications.offsets import Offsets
from socket_server.sessions import SessionManager
from tests.unit.fakes import RecordingSession, connection


def online(*users: str, broken: tuple[str, ...] = ()) -> tuple[Broadcaster, dict[str, list[RecordingSession]]]:
    """Return a broadcaster, and the sessions of each connection of the users named (twice: two connections)."""
    sessions = SessionManager(max_per_user=20)
    recorded: dict[str, list[RecordingSession]] = {}
    for user in users:
        added, session = connection(broken=user in broken)
        sessions.add(user, added)
        recorded.setdefault(user, []).append(session)
    return Broadcaster(sessions, Offsets()), recorded


def broadcast(*user_ids: str, notification: Any = None) -> Broadcast:
    return Broadcast(user_ids, len(user_ids), json.dumps(notification or {}).encode(), None)


def events(session: RecordingSession) -> list[Any]:
    assert all(text.startswith("42") for text in session.texts)
    return [json.loads(text[2:]) for text in session.texts]


def test_every_connection_of_every_user_named_gets_the_notification_and_its_offset() -> None:
    broadcaster, recorded = online("1", "1", "2", "3")
    report = broadcaster.send(broadcast("1", "2", notification={"title": "שלום"}))
    expected = ["notification", {"title": "שלום"}, report.offset]
    assert [events(session) for session in (*recorded["1"], *recorded["2"])] == [[expected]] * 3
    assert events(recorded["3"][0]) == []


def test_the_report_counts_users_connections_and_what_was_asked() -> None:
    broadcaster, _ = online("1", "1", "2")
    report = broadcaster.send(Broadcast(("1", "2", "offline"), 5, b"{}", None))
    assert report.to_json() == {
        "success": True,
        "deliveredTo": 2,
        "totalSockets": 3,
        "requestedUsers": 5,
        "id": broadcaster.head,
    }


def test_a_connection_that_takes_nothing_more_is_not_counted() -> None:
    broadcaster, _ = online("1", "1", "2", broken=("2",))
    report = broadcaster.send(broadcast("1", "2"))
    assert (report.delivered_to, report.total_sockets) == (1, 2)


def test_nobody_connected_is_no_error_and_takes_an_offset_all_the_same() -> None:
    broadcaster, _ = online()
    before = int(broadcaster.head)
    report = broadcaster.send(broadcast("1"))
    assert (report.delivered_to, report.total_sockets, report.requested_users) == (0, 0, 1)
    assert int(report.offset) > before


def test_one_encoding_is_shared_by_all_connections() -> None:
    broadcaster, recorded = online(*(str(number) for number in range(50)))
    broadcaster.send(broadcast(*recorded))
    assert len({id(session.packets[0]) for sessions in recorded.values() for session in sessions}) == 1


def test_the_notification_goes_out_byte_for_byte() -> None:
    broadcaster, recorded = online("1")
    raw = b'{ "n" : 1.0,"big":123456789012345678901234567890 }'
    report = broadcaster.send(Broadcast(("1",), 1, raw, None))
    assert recorded["1"][0].packets[0].payload == b'42["notification",%b,"%b"]' % (raw, report.offset.encode())


def test_many_publishers_at_once_leave_every_connection_with_growing_offsets() -> None:
    broadcaster, recorded = online(*(str(number % 10) for number in range(30)))
    reports: list[str] = []

    def publish() -> None:
        reports.extend([broadcaster.send(broadcast(*recorded)).offset for _ in range(100)])

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(reports)) == 800
    for session in itertools.chain.from_iterable(recorded.values()):
        offsets = [int(event[-1]) for event in events(session)]
        assert offsets == sorted(int(offset) for offset in reports)
