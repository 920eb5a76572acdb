"""A real identity provider for tests: keys, tokens signed with them, and a JWK Set behind HTTP."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

KEYS = {
    "RS256": rsa.generate_private_key(public_exponent=65_537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def signed(algorithm: str, user_id: str = "123", **header: Any) -> str:
    payload = {"id": user_id, "exp": int(time.time()) + 600}
    return jwt.encode(payload, KEYS[algorithm], algorithm=algorithm, headers=header or None)


class Provider:
    """Serves a JWK Set over HTTP on this machine. Tests change `document`, `status` and `delay_s`."""

    def __init__(self) -> None:
        self.document: Any = {"keys": []}
        self.fetched = 0
        self.status = 200
        self.delay_s = 0.0  # before each response
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.fetched += 1
                time.sleep(provider.delay_s)
                body = json.dumps(provider.document).encode()
                self.send_response(provider.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def publish(self, **keys: str) -> None:
        """Serve these keys: kid=algorithm."""
        self.document = {"keys": [self.jwk(algorithm) | {"kid": kid} for kid, algorithm in keys.items()]}

    @staticmethod
    def jwk(algorithm: str) -> dict[str, Any]:
        kind = jwt.get_algorithm_by_name(algorithm)
        made: dict[str, Any] = kind.to_jwk(KEYS[algorithm].public_key(), as_dict=True)  # type: ignore[attr-defined]
        return made | {"use": "sig"}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
