"""The check that every entry point passes: gunicorn, the Procfile, `flask run`, the console script, nginx."""

from tests.integration.conftest import Opens
from tests.servers import RunningServer, mint


def receives(server: RunningServer, opens: Opens) -> None:
    """Assert that a user's connections over every transport receive a broadcast, and that all of them end."""
    websocket, polling = opens(server), opens(server, "polling")
    for client in (websocket, polling):
        client.sign_in({"token": mint("ada")})
    upgrading = opens(server, "polling")
    upgrading.sign_in({"token": mint("ada")})
    upgraded = opens(server, query=f"&sid={upgrading.handshake['sid']}")
    upgraded.send("2probe")
    assert upgraded.receive() == "3probe"
    upgraded.send("5")
    upgraded.pong()
    stats = server.stats()
    stats.pop("nodes", None)
    assert stats == {"connectedUsers": 1, "totalConnections": 3, "averageConnectionsPerUser": 3}
    answer = server.broadcast(["ada"], {"title": "שלום"}).json()
    assert (answer["deliveredTo"], answer["totalSockets"]) == (1, 3)
    for client in (websocket, polling, upgraded):
        event = client.event()
        assert event == ["notification", {"title": "שלום"}, answer["id"]], (event, client)
        client.pong()
    refused = opens(server)
    refused.connect({"token": "bad"})
    assert refused.refusal() == ("Invalid JWT format", "invalid_format")
    for client in (websocket, polling, upgraded):
        client.close()
    server.wait_for_connections(0)
