"""A binary packet whose attachments have not all arrived."""

from typing import Any

from socket_server.runtime.deadlines import Deadline
from socket_server.transport.socketio.decoder import Head, decode_data, decode_head

COMPLETE_WITHIN_S = 20.0  # the time for all attachments; also the time for one half-sent WebSocket message


class PartialPacket:
    """Keeps the packet as it was sent and parses it when it is complete: parsed JSON takes up to 24 times the memory."""

    __slots__ = ("_attachments", "_expected", "_free_bytes", "_text", "deadline")

    def __init__(self, text: str, expected: int, max_bytes: int) -> None:
        """expected: number of attachments. max_bytes: of all attachments together."""
        self._text = text.encode()  # a str takes 4 bytes a character if it holds one emoji
        self._expected = expected
        self._attachments: list[bytes] = []
        self._free_bytes = max_bytes
        self.deadline: Deadline | None = None

    def add(self, attachment: bytes) -> bool:
        """Add the next attachment; return whether the packet is complete. Raises ValueError if they are too large."""
        self._free_bytes -= len(attachment)
        if self._free_bytes < 0:
            raise ValueError("attachments larger than a message may be")
        self._attachments.append(attachment)
        return len(self._attachments) == self._expected

    def decode(self) -> tuple[Head, Any]:
        """Return the head and the data of the complete packet. Raises ValueError."""
        head = decode_head(self._text.decode())
        return head, decode_data(head, self._attachments)
