"""Flask-SocketIO on this server: the extension, and the WSGI middleware in front of the Flask application."""

from collections.abc import Callable, Mapping
from typing import Any

import flask
import flask_socketio

from socket_server.transport.engineio.gate import PATH
from socket_server.transport.http.path import below
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.server import SocketServer


class Middleware:
    """Passes requests below /socket.io/ to the Engine.IO server and all others to Flask.

    direct: (method, path) -> WSGI application of the hot routes, called without Flask's request context and routing.
    """

    def __init__(
        self,
        engineio_server: Any,
        wsgi_app: Callable[..., Any],
        direct: Mapping[tuple[str, str], Callable[..., Any]],
        base_path: str = "",
    ) -> None:
        """base_path: BASE_PATH. The HTTP layer of the worker has removed it from PATH_INFO; other WSGI servers do not."""
        self._base_path = base_path
        self._engineio_server = engineio_server
        self._wsgi_app = wsgi_app
        self._direct = direct

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if "socket_server.percent_encoded" in environ:  # none of the paths below is
            return self._wsgi_app(environ, start_response)
        if environ.get("SCRIPT_NAME", "") != self._base_path:
            rest = below(environ["PATH_INFO"], self._base_path)
            if rest is None:
                start_response("404 Not Found", [("Content-Type", "application/json")])
                return [b'{"error":"Not Found","message":"everything is served below BASE_PATH"}']
            environ |= {"SCRIPT_NAME": self._base_path, "PATH_INFO": rest}
        path = environ["PATH_INFO"]
        endpoint = self._direct.get((environ["REQUEST_METHOD"], path))
        if endpoint is not None:
            return endpoint(environ, start_response)
        if path.startswith(PATH):
            return self._engineio_server.handle_request(environ, start_response)
        return self._wsgi_app(environ, start_response)


class SocketIO(flask_socketio.SocketIO):
    """The Flask extension. Handlers are registered as usual: `@socketio.on("auth")`.

    A handler's first argument is the Connection. There is no Flask request context: it would keep the whole handshake
    request in memory for as long as the connection lives.
    """

    server: SocketServer

    def init_app(
        self,
        app: flask.Flask,
        direct: Mapping[tuple[str, str], Callable[..., Any]] | None = None,
        base_path: str = "",
        **kwargs: Any,
    ) -> None:
        """Build the server (kwargs are SocketServer's) and put the middleware in front of the application."""
        app.extensions["socketio"] = self
        self.server = SocketServer(**kwargs)
        self.async_mode = self.server.async_mode
        for name, handler, namespace in self.handlers:
            self.server.on(name, handler, namespace=namespace)
        self.sockio_mw = Middleware(self.server.eio, app.wsgi_app, direct or {}, base_path)
        app.wsgi_app = self.sockio_mw  # type: ignore[method-assign]

    def _handle_event(
        self, handler: Callable[..., Any], message: str, namespace: str, connection: Connection, *args: Any
    ) -> Any:
        return handler(connection, *args)
