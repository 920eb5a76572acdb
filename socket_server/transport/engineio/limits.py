"""What one client may cost."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """max_message_bytes: of one message from a client; send_backlog_bytes: unsent bytes before a slow one is cut."""

    max_message_bytes: int
    send_backlog_bytes: int
    connect_timeout_s: float  # from the Engine.IO handshake to the Socket.IO CONNECT
    events_per_second: float  # of one connection, on average

    @property
    def event_burst(self) -> float:
        return self.events_per_second * 2.5

    @property
    def frames_per_second(self) -> float:
        """WebSocket frames of one connection: fragments and control frames come on top of the events."""
        return self.events_per_second * 10

    @property
    def frame_burst(self) -> float:
        return self.event_burst * 10
