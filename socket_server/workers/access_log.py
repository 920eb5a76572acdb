"""gunicorn's access log (--access-logfile), written for our responses."""

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from gunicorn.workers.ggevent import GeventResponse

from socket_server.transport.http.context import LogAccess
from socket_server.transport.http.response import Headers


def writer(cfg: Any, logger: Any) -> LogAccess | None:
    """Return what writes a line, or None if gunicorn is configured to write none."""
    if not cfg.accesslog:
        return None

    def write(environ: Mapping[str, Any], status: str, headers: Headers, sent: int, started: float) -> None:
        request_headers = [(name[5:].replace("_", "-"), text) for name, text in environ.items() if name[:5] == "HTTP_"]
        logger.access(
            GeventResponse(status, headers, sent), request_headers, environ, timedelta(seconds=time.time() - started)
        )

    return write
