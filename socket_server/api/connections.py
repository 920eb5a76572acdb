"""GET and DELETE /users/<id>/connections: list a user's connections, and sign the user out everywhere."""

from flask import Blueprint, Response

from socket_server.api import user_paths
from socket_server.api.authorization import Authorization
from socket_server.api.errors import json_response
from socket_server.cluster.registry import Registry


def blueprint(registry: Registry, authorization: Authorization) -> Blueprint:
    """Return the routes."""
    bp = user_paths.blueprint("connections", authorization)

    @bp.get("/users/<any_text:user_id>/connections")
    def online(user_id: str) -> Response:
        """List a user's connections on all nodes, oldest first. 503: Redis cannot be reached."""
        return json_response({"connections": [each.to_json() for each in registry.connections_of(user_id)]})

    @bp.delete("/users/<any_text:user_id>/connections")
    def sign_out(user_id: str) -> Response:
        """End a user's connections on all nodes with `auth_error` `signed_out`. 503: Redis cannot be reached.

        The official client does not reconnect by itself after that.
        """
        return json_response({"success": True, "disconnected": registry.sign_out(user_id)})

    return bp
