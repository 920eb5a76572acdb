"""The demo page at /: sign in as a user, send a notification, see it arrive. In development, or with DEMO=1."""

import time
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, abort, request, send_from_directory

from socket_server import __version__
from socket_server.api.authorization import is_local
from socket_server.api.errors import json_response
from socket_server.auth import tokens
from socket_server.auth.user_ids import user_id_text
from socket_server.config import Settings
from socket_server.errors import RequestError

_HERE = Path(__file__).parent
_CLIENT_DIR = _HERE / "client"  # `make run` copies the official client there
_CLIENT_FILE = "socket.io.min.js"
_CDN = "https://cdn.socket.io"
# Without npm the page loads the client from the CDN: the newest version whose hash the client's documentation states
# (socket.io/docs/v4/client-installation). dist/socket.io.min.js in the npm package of that version has the same hash.
_CDN_VERSION = "4.8.3"
_CDN_INTEGRITY = "sha384-kzavj5fiMwLKzzD1f8S7TeoVIEi7uKHvbTA3ueZkrzYq75pNQUiUi6Dy98Q3fxb0"

TOKEN_LIFETIME_S = 86_400

_CSP = (
    f"default-src 'self'; script-src 'self' {_CDN}; connect-src 'self' ws: wss:; img-src 'self' https: data:; "
    "style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)


def blueprint(settings: Settings, minting_secret: str) -> Blueprint:
    """Return the routes. minting_secret: signs development tokens; "": none are minted."""
    bp = Blueprint("demo", __name__)
    can_mint = settings.development and bool(minting_secret)

    base = settings.base_path
    index = (_HERE / "static" / "index.html").read_text(encoding="utf-8").replace('="/demo/', f'="{base}/demo/')

    @bp.get("/")
    def page() -> Response:
        return Response(index, mimetype="text/html")

    @bp.get("/demo/static/<path:name>")
    def static_file(name: str) -> Response:
        return send_from_directory(_HERE / "static", name)

    @bp.get(f"/demo/{_CLIENT_FILE}")
    def client() -> Response:
        return send_from_directory(_CLIENT_DIR, _CLIENT_FILE)

    @bp.get("/demo/config.json")
    def config() -> Response:
        placed = (_CLIENT_DIR / _CLIENT_FILE).is_file()
        source: dict[str, Any] = {"src": f"{base}/demo/{_CLIENT_FILE}", "integrity": None}
        if not placed:
            source = {"src": f"{_CDN}/{_CDN_VERSION}/{_CLIENT_FILE}", "integrity": _CDN_INTEGRITY}
        return json_response(
            {
                "mode": settings.app_env,
                "client": source,
                "canMint": can_mint,
                "transports": settings.transports,
                "needsApiKey": not settings.api_open and bool(settings.api_keys or not settings.development),
                "version": __version__,
            }
        )

    @bp.post("/demo/token")
    def token() -> Response:
        """Mint a token for a user: in development, for this machine only."""
        if not can_mint:
            abort(404)
        if not is_local(request.environ):
            raise RequestError(403, "Forbidden", "development tokens are minted for calls from this machine only")
        body = request.get_json(silent=True)
        user_id = user_id_text(body.get("userId")) if isinstance(body, dict) else None
        if not user_id or len(user_id) > 200:
            raise RequestError(400, "userId is required", 'send {"userId": "123"} as application/json')
        now = time.time()
        minted = tokens.mint(user_id, minting_secret, settings, TOKEN_LIFETIME_S, now)
        return json_response({"token": minted, "expiresAt": int(now) + TOKEN_LIFETIME_S})

    @bp.after_request
    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = _CSP
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-cache"
        return response

    return bp
