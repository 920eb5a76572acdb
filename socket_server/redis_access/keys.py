"""The names of all keys in Redis.

They share a prefix. Its part in braces (hash tag) puts them into one slot of a Redis Cluster. Names and content are an
interface between nodes of different versions; inbox/redis/append.lua and cluster/update.lua describe the content.
"""

from dataclasses import dataclass

from socket_server.config.settings import REDIS_PREFIX


@dataclass(frozen=True, slots=True)
class Keys:
    """prefix: REDIS_PREFIX."""

    prefix: str = REDIS_PREFIX

    # Of the inbox

    @property
    def head(self) -> str:
        """The newest offset given."""
        return f"{self.prefix}head"

    @property
    def log(self) -> str:
        """A stream of all that was stored, which every node reads."""
        return f"{self.prefix}log"

    def claim(self, key: str) -> bytes:
        """The hash of an idempotency key."""
        return encode(f"{self.prefix}key:{key}")

    # Of the cluster

    @property
    def nodes(self) -> str:
        """A sorted set: each node, and when its lease ends."""
        return f"{self.prefix}nodes"

    @property
    def signed_out(self) -> str:
        """A sorted set: users who were signed out in the last day, and when."""
        return f"{self.prefix}signed-out"

    @property
    def connections(self) -> str:
        """The prefix of the hashes that hold the connections of each user, on all nodes."""
        return f"{self.prefix}connections:"

    def connections_of(self, user_id: str) -> bytes:
        """The hash of a user's connections."""
        return encode(self.connections + user_id)

    def node(self, name: str) -> str:
        """The hash of a node's connections."""
        return f"{self.prefix}node:{name}"

    def addresses(self, node: str) -> str:
        """The hash of a node's connections by client address."""
        return f"{self.prefix}addresses:{node}"

    def control_stream(self, node: str) -> str:
        """The stream of what other nodes ask of a node, or tell it."""
        return f"{self.prefix}news:{node}"


DEFAULT_KEYS = Keys()


def encode(text: str) -> bytes:
    """Return a text as Redis stores it. A lone surrogate (in a user id of a token) is in no stored name, and finds none."""
    return text.encode("utf-8", "surrogatepass")
