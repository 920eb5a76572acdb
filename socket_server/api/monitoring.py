"""GET /health, /health/live and /stats."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, request

from socket_server.api.authorization import Authorization
from socket_server.api.errors import json_response
from socket_server.cluster.registry import ClusterStats, Registry
from socket_server.errors import ClusterUnavailable
from socket_server.health import OK, Health
from socket_server.sessions import SessionManager

# What a stranger is told of a part that is not well: not where it is.
_UNAVAILABLE = "unavailable; the server's log says why, and so does this page to who has an API key"


def blueprint(
    sessions: SessionManager,
    registry: Registry,
    health_of_parts: Health,
    draining: Callable[[], bool],
    authorization: Authorization,
) -> Blueprint:
    """draining: whether the server is shutting down."""
    bp = Blueprint("monitoring", __name__)
    started = time.monotonic()

    @bp.get("/health")
    def health() -> Response:
        """200 healthy; 503 draining or unhealthy: a load balancer sends new clients elsewhere."""
        checks = health_of_parts.checks()
        status = "draining" if draining() else "healthy" if checks.good else "unhealthy"
        body: dict[str, Any] = {
            "status": status,
            "uptime": round(time.monotonic() - started, 2),
            "stats": _stats_or_own(checks.good).to_json(),
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        if not checks.good:
            known = authorization.allows(request.environ)
            body["checks"] = {name: text if known or text == OK else _UNAVAILABLE for name, text in checks.texts.items()}
        return json_response(body, 200 if status == "healthy" else 503)

    @bp.get("/health/live")
    def live() -> Response:
        """200 as long as the process runs and answers."""
        return json_response({"status": "alive"})

    @bp.get("/stats")
    def stats() -> Response:
        """Who is connected, in numbers. 503: the other nodes cannot be asked."""
        return json_response(registry.stats().to_json())

    def _stats_or_own(ask: bool) -> ClusterStats:
        """ask: False where the others cannot be asked, as far as is known: that is not waited for a second time."""
        try:
            if ask:
                return registry.stats()
        except ClusterUnavailable:
            pass  # the next `checks` say why
        return ClusterStats(sessions.stats())

    return bp
