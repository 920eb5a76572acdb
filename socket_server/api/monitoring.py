"""GET /health, /health/live and /stats."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response

from socket_server.api.errors import json_response
from socket_server.sessions import SessionManager


def blueprint(sessions: SessionManager, draining: Callable[[], bool]) -> Blueprint:
    """draining: whether the server is shutting down."""
    bp = Blueprint("monitoring", __name__)
    started = time.monotonic()

    @bp.get("/health")
    def health() -> Response:
        """200 healthy, or 503 draining: a load balancer sends new clients elsewhere."""
        stopping = draining()
        body: dict[str, Any] = {
            "status": "draining" if stopping else "healthy",
            "uptime": round(time.monotonic() - started, 2),
            "stats": sessions.stats().to_json(),
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        return json_response(body, 503 if stopping else 200)

    @bp.get("/health/live")
    def live() -> Response:
        """200 as long as the process runs and answers."""
        return json_response({"status": "alive"})

    @bp.get("/stats")
    def stats() -> Response:
        """Who is connected, in numbers."""
        return json_response(sessions.stats().to_json())

    return bp
