"""The command line: `socket-server run | token | send | listen | inbox | doctor` (docs/cli.md)."""

from socket_server.cli.main import main

__all__ = ["main"]
