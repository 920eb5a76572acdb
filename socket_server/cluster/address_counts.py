"""What of the limits by client address the nodes tell each other (transport/engineio/address_limits.py has the limits)."""

from collections.abc import Mapping
from typing import Protocol


class AddressCounts(Protocol):
    """The counts by address on this node, and those of the other nodes."""

    def counts(self) -> Mapping[str, int]:
        """Return this node's connections by address; empty if they are not limited."""

    def failed_elsewhere(self, address: str, count: int) -> None:
        """Add failed authentications on another node."""

    def set_elsewhere(self, node: str, address: str, count: int) -> None:
        """Set the connections that another node has from an address."""

    def set_all_elsewhere(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Replace the counts of all other nodes: node -> address -> connections."""

    def forget_elsewhere(self, node: str) -> None:
        """Drop the counts of a node that has ended."""
