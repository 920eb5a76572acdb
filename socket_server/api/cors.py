"""CORS: browsers of the sites in CLIENT_URL may call the API; nobody else's are answered."""

from flask import Flask, Response, request

from socket_server.transport.engineio.origins import Origins


def register(app: Flask, origins: Origins) -> None:
    """Answer preflights, and add the headers where an allowed origin asks."""

    @app.before_request
    def preflight() -> Response | None:
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return Response(status=204 if origins.allow(request.environ) else 403)
        return None

    @app.after_request
    def allow(response: Response) -> Response:
        for name, value in origins.headers(request.environ):
            response.headers.add(name, value)
        return response
