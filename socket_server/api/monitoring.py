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

# For callers without an API key: a reason would reveal the address of the inbox or of Redis.
_UNAVAILABLE = "unavailable; the reason is in the server's log, and in this answer to a call with an API key"


def blueprint(
    sessions: SessionManager,
    registry: Registry,
    health_of_parts: Health,
    draining: Callable[[], bool],
    authorization: Authorization,
) -> Blueprint:
    """Return the routes. draining: whether the server is shutting down."""
    bp = Blueprint("monitoring", __name__)
    started = time.monotonic()

    @bp.get("/health")
    def health() -> Response:
        """200 `healthy`; 503 `draining` or `unhealthy`, so that a load balancer sends new clients to other nodes."""
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
        """200 while the process runs and answers."""
        return json_response({"status": "alive"})

    @bp.get("/stats")
    def stats() -> Response:
        """Numbers of users and connections, over all nodes. 503: Redis cannot be reached."""
        try:
            return json_response(registry.stats().to_json())
        except ClusterUnavailable:
            if authorization.allows(request.environ):
                raise
            raise ClusterUnavailable(f"the other nodes are {_UNAVAILABLE}") from None

    def _stats_or_own(ask: bool) -> ClusterStats:
        """Return the figures of all nodes, or of this one if Redis cannot be reached. ask: False if that is known."""
        try:
            if ask:
                return registry.stats()
        except ClusterUnavailable:
            pass  # the next health check reports the reason
        return ClusterStats(sessions.stats())

    return bp
