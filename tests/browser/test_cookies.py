"""Authentication by the cookies that a browser sends: for pages of CLIENT_URL only."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.browser.conftest import Play
from tests.servers import mint, running

PAGE = b"<!doctype html><meta charset=utf-8><title>an application</title><script src=/socket.io.min.js></script>"


@contextlib.contextmanager
def application(client_file: Path) -> Iterator[str]:
    """Serve a web site with one page that loads the official client; yield its port."""

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script = self.path == "/socket.io.min.js"
            body = client_file.read_bytes() if script else PAGE
            self.send_response(200)
            self.send_header("Content-Type", "text/javascript" if script else "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        thread = threading.Thread(target=site.serve_forever, daemon=True)
        thread.start()
        yield str(site.server_port)
        site.shutdown()
        thread.join()


def test_cookies_authenticate_pages_of_allowed_origins_only(play: Play, tmp_path: Path, client_file: Path) -> None:
    with application(client_file) as ours, application(client_file) as foreign:
        listed = f"http://127.0.0.1:{ours}"
        # Cookies ignore ports: the browser sends them to the first of these origins, not to the second.
        unlisted = [f"http://127.0.0.1:{foreign}", f"http://localhost:{ours}"]
        with running(tmp_path, CLIENT_URL=listed) as server:
            seen = play("cookies.mjs", server=server.url, origins=[listed, *unlisted], token=mint("123"))["seen"]
            assert seen[listed] == [{"event": "auth_success", "userId": "123"}] * 3
            for origin in unlisted:
                assert seen[origin] == [{"event": "connect_error", "userId": None}] * 3
            log = server.log()
            assert log.count("added sid=") == log.count(" connected sid=") == 3  # the handshakes of the others are refused


def test_without_cookies_a_page_of_an_allowed_origin_is_not_signed_in(
    play: Play, tmp_path: Path, client_file: Path
) -> None:
    with application(client_file) as ours:
        listed = f"http://127.0.0.1:{ours}"
        with running(tmp_path, CLIENT_URL=listed, AUTH_TIMEOUT=0.5) as server:
            seen = play("cookies.mjs", server=server.url, origins=[listed], token="")["seen"]
            assert seen[listed] == [{"event": "auth_error", "userId": None}] * 3
