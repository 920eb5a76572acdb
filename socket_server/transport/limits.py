"""What one client may cost."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """max_message_bytes: of one message from a client; send_backlog_bytes: unsent bytes before a slow one is cut."""

    max_message_bytes: int
    send_backlog_bytes: int
    connect_timeout_s: float  # from the Engine.IO handshake to the Socket.IO CONNECT
