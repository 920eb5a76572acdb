"""The limits of one client."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """max_message_bytes: of one message from a client. send_backlog_bytes: unsent; a slower consumer is closed."""

    max_message_bytes: int
    send_backlog_bytes: int
    auth_timeout_s: float  # for the Socket.IO CONNECT after the Engine.IO handshake, and for an upgrade
    events_per_second: float  # of one connection, on average

    @property
    def event_burst(self) -> float:
        return self.events_per_second * 2.5

    @property
    def frames_per_second(self) -> float:
        """WebSocket frames of one connection. Higher than the limit of events, for fragments and control frames."""
        return self.events_per_second * 10

    @property
    def frame_burst(self) -> float:
        return self.event_burst * 10
