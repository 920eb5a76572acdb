"""Limits by client address: connections at once, and failed authentications a minute; shared by all nodes of a cluster.

IPv6 addresses are counted by their /64 network. A client without an address is not limited.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from socket_server.transport.engineio.client_address import limit_key
from socket_server.transport.engineio.rate import RateByName


class AddressLimits:
    """Counts sessions and failed authentications of each address, here and on the other nodes.

    The names given to the callbacks and to the methods about other nodes are limit keys (client_address.limit_key).
    """

    def __init__(self, max_connections: int = 0, max_failures_per_minute: float = 300) -> None:
        """max_connections: of one address over all nodes; 0: no limit, and sessions are not counted."""
        self._max_connections = max_connections
        self._here: dict[str, int] = {}
        self._elsewhere: dict[str, dict[str, int]] = {}  # node -> limit key -> connections
        self._failures = RateByName(max_failures_per_minute / 60, max_failures_per_minute)
        self.on_failed: Callable[[str], object] = _nothing  # called at each failed authentication
        self.on_counted: Callable[[str, int], object] = _nothing  # called with the new number of connections here

    def crowded(self, address: str) -> bool:
        """Return whether the address has as many connections as it may have."""
        if not self._max_connections or not address:
            return False
        return self.count(address) >= self._max_connections

    def count(self, address: str) -> int:
        """Return the number of sessions of an address on all nodes."""
        key = limit_key(address)
        return self._here.get(key, 0) + sum(counts.get(key, 0) for counts in self._elsewhere.values())

    def blocked(self, address: str) -> bool:
        """Return whether too many authentications from the address failed."""
        return bool(address) and self._failures.wait_s(limit_key(address), time.monotonic()) > 0

    def opened(self, address: str) -> None:
        """Count a session that begins."""
        if self._max_connections and address:
            key = limit_key(address)
            count = self._here[key] = self._here.get(key, 0) + 1
            self.on_counted(key, count)

    def closed(self, address: str) -> None:
        """Count a session that ends."""
        if self._max_connections and address:
            key = limit_key(address)
            count = max(0, self._here.pop(key, 0) - 1)
            if count:
                self._here[key] = count
            self.on_counted(key, count)

    def failed(self, address: str) -> None:
        """Count a failed authentication."""
        if address:
            key = limit_key(address)
            self._failures.take(key, time.monotonic())
            self.on_failed(key)

    # Other nodes

    def counts(self) -> Mapping[str, int]:
        """Return the number of sessions of each address here; empty if addresses are not limited."""
        return self._here

    def failed_elsewhere(self, key: str, count: int) -> None:
        """Count failed authentications on another node."""
        self._failures.take(key, time.monotonic(), count)

    def set_elsewhere(self, node: str, key: str, count: int) -> None:
        """Set the number of connections that an address has on another node."""
        counts = self._elsewhere.setdefault(node, {})
        if count:
            counts[key] = count
        else:
            counts.pop(key, None)

    def set_all_elsewhere(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Replace the counts of all other nodes: node -> limit key -> connections."""
        self._elsewhere = {node: dict(each) for node, each in counts.items()}

    def forget_elsewhere(self, node: str) -> None:
        """Remove the counts of a node that has left."""
        self._elsewhere.pop(node, None)


def _nothing(*_: Any) -> None:
    pass
