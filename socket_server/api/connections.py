"""GET and DELETE /users/<id>/connections: where a user is signed in, and signing out everywhere."""

from flask import Blueprint, Response, request

from socket_server.api.authorization import Authorization
from socket_server.api.errors import json_response
from socket_server.cluster.registry import Registry


def blueprint(registry: Registry, authorization: Authorization) -> Blueprint:
    """Register the endpoints; paths.prepare() the app before."""
    bp = Blueprint("connections", __name__)

    @bp.get("/users/<any_text:user_id>/connections")
    def online(user_id: str) -> Response:
        """List a user's connections on all nodes, oldest first. 503: the other nodes cannot be asked."""
        authorization.require(request.environ)
        return json_response({"connections": [each.to_json() for each in registry.connections_of(user_id)]})

    @bp.delete("/users/<any_text:user_id>/connections")
    def sign_out(user_id: str) -> Response:
        """End a user's connections on all nodes: their clients get `auth_error` `signed_out` and do not come back by
        themselves. 503: the other nodes cannot be told."""
        authorization.require(request.environ)
        return json_response({"success": True, "disconnected": registry.sign_out(user_id)})

    return bp
