"""Bind the configured addresses once before gunicorn does: gunicorn retries five times and logs two lines for each."""

import errno
import os
import socket
from typing import Any


def problems_with(cfg: Any, host: str, port: int) -> list[str]:
    """Return why the addresses of gunicorn's settings cannot be bound, with the remedy.

    host, port: HOST and PORT, which are named if they are the address. Nothing is tried if gunicorn inherits its sockets
    (systemd, SIGUSR2).
    """
    if "GUNICORN_FD" in os.environ or "LISTEN_FDS" in os.environ:
        return []
    found = []
    for address in cfg.address:
        if isinstance(address, tuple):
            error = _try(address)
            if error is not None:
                ours = (str(address[0]), address[1]) == (host, port)
                found.append(_explain(error, str(address[0]), address[1], "HOST" if ours else "", "PORT" if ours else ""))
    return found


def _try(address: tuple[Any, ...]) -> OSError | None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does
        try:
            tried.bind(address)
        except OSError as error:
            return error
    return None


def _explain(error: OSError, host: str, port: int, host_name: str, port_name: str) -> str:
    given = "gunicorn was told to listen on (-b/--bind)"
    if isinstance(error, socket.gaierror):
        return f"{host_name or given} {'is ' if host_name else ''}{host!r}, which is no address and does not resolve"
    if error.errno == errno.EADDRINUSE:
        subject = f"{port_name} is {port}" if port_name else f"{given} port {port}"
        return f"{subject}, on which another process listens already (ss -ltnp): stop it, or use another port"
    if error.errno == errno.EADDRNOTAVAIL:
        subject = f"{host_name} is {host!r}" if host_name else f"{given} {host!r}"
        return f"{subject}, which is no address of this machine: use 0.0.0.0, ::, or one of its addresses"
    if error.errno == errno.EACCES:
        subject = f"{port_name} is {port}" if port_name else f"{given} port {port}"
        return f"{subject}, for which this user has no right (ports below 1024): use another, behind a proxy"
    subject = f"{host_name} is {host!r} and {port_name} is {port}" if host_name else f"{given} {host!r}, port {port}"
    return f"{subject}, which does not work: {error.strerror}"
