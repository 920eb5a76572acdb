"""Group commit: the posts of publishers that wait at the same time are stored by one append, in the order of their arrival.

One publisher at a time holds the store lock and stores for all that wait. Posts that arrive during that are the next group.
"""

import threading
from collections.abc import Callable, Sequence

from socket_server import log
from socket_server.errors import InboxUnavailable
from socket_server.inbox.inbox import DeliveryCount, Entry, Repeat
from socket_server.notifications.delivery_queue import Batch
from socket_server.notifications.notification import Broadcast
from socket_server.runtime.time_slice import poll_event_loop
from socket_server.sessions import Audience

_log = log.logger("Broadcast")

# Users of the posts of one group, unless its first post alone has more. Larger groups save little, and delay the first.
MAX_GROUP_USERS = 16_384

# A group with fewer users than this polls the event loop once before it is stored, so that posts that have arrived join it.
MAX_USERS_TO_POLL = 1_024


class Post:
    """The broadcasts of one request, and what became of them.

    Once stored, `batch` is set, and there are for each broadcast: its entry in the store; its offset, or the Repeat that
    it is; its audience on this node (None for a repeat); its counts over all nodes (no counts at all if there is one node).
    If it could not be stored, `error` is set.
    """

    __slots__ = ("all_nodes", "audiences", "batch", "broadcasts", "entries", "error", "outcomes", "owner", "users")

    def __init__(self, broadcasts: Sequence[Broadcast] = (), owner: str = "") -> None:
        """broadcasts: none for a post that only asks the store for what others have stored. owner: of their keys."""
        self.broadcasts = broadcasts
        self.owner = owner
        self.users = sum([len(broadcast.user_ids) for broadcast in broadcasts])
        self.entries: Sequence[Entry] = ()
        self.outcomes: Sequence[int | Repeat] = ()
        self.audiences: Sequence[Audience | None] = ()
        self.all_nodes: Sequence[DeliveryCount] = ()
        self.batch: Batch | None = None
        self.error: InboxUnavailable | None = None

    @property
    def connections(self) -> int:
        """The number of connections on this node that it goes to, each counted for each notification."""
        return sum([len(audience.connections) for audience in self.audiences if audience is not None])

    @property
    def answered(self) -> bool:
        """Whether it is stored or has failed."""
        return self.batch is not None or self.error is not None


class GroupCommit:
    """Posts that wait to be stored.

    store_lock: held while a group is stored and enqueued, so that groups keep their order.
    """

    def __init__(self, store: Callable[[Sequence[Post]], None]) -> None:
        """store: stores posts together, all or none, and sets what Post has after that; raises InboxUnavailable."""
        self._store = store
        self._waiting: list[Post] = []
        self.store_lock = threading.Lock()

    def run(self, post: Post, *, and_next: bool = False) -> Batch:
        """Store a post, with its group; return the batch to submit. Raises InboxUnavailable.

        and_next: also store the group that has formed during that, whose publishers would have to be woken up first. For
        callers that no client waits for.
        """
        self._waiting.append(post)
        try:
            with self.store_lock:
                while not post.answered:
                    self._store_group()
                if and_next and self._waiting:
                    self._store_group()
        except BaseException:
            if post in self._waiting:
                self._waiting.remove(post)  # this publisher was killed: there is no one to answer
            raise
        if post.error is not None:
            raise post.error
        assert post.batch is not None
        return post.batch

    def _store_group(self) -> None:
        if sum([post.users for post in self._waiting]) < MAX_USERS_TO_POLL:
            # On one core the store would otherwise answer before the next request is read, and each post be a group.
            poll_event_loop()
        group = self._take_group()
        try:
            self._store(group)
        except InboxUnavailable as error:
            refused = sum([len(post.broadcasts) for post in group])
            if refused:
                _log.error("refused %d broadcasts: %s", refused, error)
            _fail(group, error)
        except Exception:
            # Not raised: the caller may store a group that its own post is not part of.
            _log.exception("unexpected error in a broadcast")
            _fail(group, InboxUnavailable("the server failed; its log says why"))
        except BaseException:
            _fail(group, InboxUnavailable("the server is ending"))
            raise

    def _take_group(self) -> Sequence[Post]:
        count = users = 0
        for post in self._waiting:
            users += post.users
            if count and users > MAX_GROUP_USERS:
                break
            count += 1
        group = self._waiting[:count]
        del self._waiting[:count]
        return group


def _fail(group: Sequence[Post], error: InboxUnavailable) -> None:
    for post in group:
        post.error = error
