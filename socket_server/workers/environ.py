"""The part of a WSGI environment (PEP 3333) that is the same for all requests to one listening socket."""

from typing import Any

from gunicorn.http.wsgi import base_environ
from gunicorn.workers.ggevent import VERSION


def of_listener(cfg: Any, address: Any, several_workers: bool, base_path: str = "") -> dict[str, Any]:
    """Return the variables of the server's side. address: of the listening socket, as getsockname() returns it.

    base_path: BASE_PATH.
    """
    return {
        **base_environ(cfg),
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SCRIPT_NAME": base_path,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": str(address[1]) if isinstance(address, tuple) else "",
        "SERVER_SOFTWARE": VERSION,
        "wsgi.multiprocess": several_workers,
        "wsgi.multithread": True,
        "wsgi.run_once": False,
        "wsgi.url_scheme": "https" if cfg.is_ssl else "http",
    }
