"""The upgrade from polling to WebSocket on the wire.

Source: github.com/socketio/engine.io-protocol, "Upgrade".
"""

import json
import threading

import pytest

from tests.integration.conftest import Opens, OpensRaw, polling, upgrade
from tests.integration.protocol import (
    RECORD_SEPARATOR,
)
from tests.servers import RunningServer, mint, wait_for


def test_an_upgrade_moves_a_session_to_websocket(shared_server: RunningServer, opens: Opens) -> None:
    old = polling(shared_server, opens)
    old.sign_in({"token": mint("mover")})
    new = upgrade(shared_server, opens, old)
    new.send("2probe")
    assert new.receive() == "3probe"
    assert old.poll().text == "6"
    shared_server.broadcast(["mover"], {"n": 1})  # between probe and upgrade
    new.send("5")
    assert new.event()[1] == {"n": 1}
    new.pong()
    assert shared_server.stats()["totalConnections"] == 1
    assert old.poll().status_code == 400
    assert old.post('42["ping"]').status_code == 400
    new.pong()
    new.close()
    shared_server.wait_for_connections(0)


def test_a_waiting_poll_is_released_by_the_probe(shared_server: RunningServer, opens: Opens) -> None:
    old = polling(shared_server, opens)
    old.sign_in({"token": mint("mover")})
    answers: list[str] = []
    waiting = threading.Thread(target=lambda: answers.append(old.poll().text))
    waiting.start()
    new = upgrade(shared_server, opens, old)
    new.send("2probe")
    assert new.receive() == "3probe"
    waiting.join(5)
    assert answers == ["6"]
    new.send("5")
    new.pong()


@pytest.mark.parametrize("round_", range(3))
def test_order_is_kept_while_notifications_flow_through_an_upgrade(
    shared_server: RunningServer, opens: Opens, round_: int
) -> None:
    user, total = f"flow-{round_}", 200
    old = polling(shared_server, opens)
    old.sign_in({"token": mint(user)})
    received: list[int] = []

    def keep(packets: list[str]) -> bool:
        received.extend(json.loads(packet[2:])[1]["n"] for packet in packets if packet.startswith("42"))
        return packets == ["6"]

    def publish() -> None:
        for number in range(total):
            shared_server.broadcast([user], {"n": number})

    publisher = threading.Thread(target=publish)
    publisher.start()
    probed = threading.Event()

    def poll() -> None:
        while not (keep(old.poll().text.split(RECORD_SEPARATOR)) and probed.is_set()):
            pass

    poller = threading.Thread(target=poll)
    poller.start()
    wait_for(lambda: len(received) > 10 * (round_ + 1), what="notifications")
    new = upgrade(shared_server, opens, old)
    probed.set()
    new.send("2probe")
    assert new.receive() == "3probe"
    poller.join(10)
    new.send("5")
    while len(received) < total:
        received.append(new.event()[1]["n"])
    publisher.join()
    assert received == list(range(total))


@pytest.mark.parametrize("packet", ["5", "2", "2prob", '42["ping"]', "3probe"])
def test_a_failed_probe_leaves_polling_as_it_was(shared_server: RunningServer, opens: Opens, packet: str) -> None:
    old = polling(shared_server, opens)
    old.sign_in({"token": mint("stays")})
    new = upgrade(shared_server, opens, old)
    new.send(packet)
    assert new.receive() is None
    old.pong()
    again = upgrade(shared_server, opens, old)
    again.send("2probe")
    assert again.receive() == "3probe"


def test_a_probe_that_disconnects_leaves_polling_as_it_was(shared_server: RunningServer, opens: Opens) -> None:
    old = polling(shared_server, opens)
    old.sign_in({"token": mint("stays")})
    new = upgrade(shared_server, opens, old)
    new.send("2probe")
    assert new.receive() == "3probe"
    new.close()
    wait_for(lambda: old.post('42["ping"]').status_code == 200 and "pong" in old.poll().text, 5, "polling to go on")


def test_a_session_upgrades_once(shared_server: RunningServer, opens: Opens, opens_raw: OpensRaw) -> None:
    old = polling(shared_server, opens)
    old.sign_in({"token": mint("once")})
    query = f"EIO=4&transport=websocket&sid={old.handshake['sid']}"
    new = upgrade(shared_server, opens, old)
    new.send("2probe")
    assert new.receive() == "3probe"
    assert opens_raw(shared_server, query=query).status == 400
    new.send("5")
    new.pong()
    assert opens_raw(shared_server, query=query).status == 400
    new.pong()
