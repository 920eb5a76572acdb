"""Recovery on the wire: the order of packets, which a stock client does not show."""

from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Opens
from tests.integration.protocol import TRANSPORTS, Client
from tests.servers import RunningServer, mint, running

over_both = pytest.mark.parametrize("transport", TRANSPORTS)


def events_until_pong(connection: Client) -> list[list[Any]]:
    connection.emit("ping")
    events = []
    while (event := connection.event()) != ["pong", None]:
        events.append(event)
    return events


@over_both
def test_a_token_refreshed_during_a_replay_is_answered_behind_it(
    shared_server: RunningServer, opens: Opens, transport: str
) -> None:
    """Its lastId must be no promise of what the client has not got."""
    user = f"refreshes-{transport}"
    start = opens(shared_server).sign_in({"token": mint(user)})["lastId"]
    large = {"body": "x" * 20_000}
    ids = [shared_server.broadcast([user], large).json()["id"] for _ in range(150)]  # more than the kernel holds
    connection = opens(shared_server, transport)
    connection.connect({"token": mint(user), "lastId": start})
    connection.emit("auth", {"userId": user, "jwt": mint(user)})
    live = [shared_server.broadcast([user], {"n": n}).json()["id"] for n in range(3)]

    first = connection.event()
    assert (first[0], first[1]["replayed"], first[1]["recovered"]) == ("auth_success", 150, True)
    seen: list[str] = []
    refreshed = 0
    while len(seen) < 153 or not refreshed:
        name, body, *rest = connection.event()
        if name == "auth_success":
            refreshed += 1
            assert body["recovered"] is True
            assert int(body["lastId"]) <= int(seen[-1]), "it promises what has not come"
            assert len(seen) >= 150
        else:
            seen.append(rest[0])
    assert seen == ids + live
    assert refreshed == 1


@over_both
def test_a_client_that_comes_from_a_process_a_little_ahead_has_missed_nothing(
    tmp_path: Path, opens: Opens, transport: str
) -> None:
    """While gunicorn reloads, the new worker may not have seen yet what the old one has just delivered."""
    url = f"sqlite:///{tmp_path}/shared.db"
    with running(tmp_path, INBOX_URL=url) as old, running(tmp_path, INBOX_URL=url) as new:
        connection = opens(old, transport)
        pid = connection.connect({"token": mint("ada")})["pid"]
        connection.success()
        for n in range(5):
            old.broadcast(["ada"], {"n": n})
            offset = connection.event()[2]
            again = opens(new, transport)
            assert again.connect({"token": mint("ada"), "pid": pid, "offset": offset})["pid"] == pid
            success = again.success()
            assert (success["recovered"], success["replayed"], success["lastId"]) == (True, 0, offset)
            assert events_until_pong(again) == []


@pytest.mark.parametrize("last_id", ["undefined", "9" * 18, -1, [], True], ids=repr)
def test_a_wrong_last_id_does_not_outdo_where_the_client_started(
    shared_server: RunningServer, opens: Opens, last_id: Any
) -> None:
    """A page that says a bad lastId at every connect still misses nothing before its first notification."""
    user = f"frozen-{last_id}"
    first = opens(shared_server)
    pid = first.connect({"token": mint(user), "lastId": last_id})["pid"]
    assert first.success()["recovered"] is False
    first.close()
    missed = shared_server.broadcast([user], {"n": 1}).json()["id"]
    again = opens(shared_server)
    again.connect({"token": mint(user), "lastId": last_id, "pid": pid})
    success = again.success()
    assert (success["recovered"], success["replayed"], success["lastId"]) == (True, 1, missed)
    assert again.event()[2] == missed
