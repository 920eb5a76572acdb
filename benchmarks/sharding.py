"""What arithmetic does not tell of a server of many shards: `python -m benchmarks.sharding`. A simulation, no server runs.

How long it takes until a broadcast is stored on all the shards that its users live on, and how long until all clients of
a dead node, or of a dead third of the nodes, are live again. The costs are those that benchmarks.bus, benchmarks.registry
and benchmarks.nodes measured (docs/scaling.md); the random numbers are the same in every run.
"""

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

# Redis's processor time, in seconds: for a call, for each notification in it, for each user of that.
CALL_S = 100e-6
ENTRY_S = 20e-6
USER_S = 4.5e-6
HOP_S = 100e-6  # from a node to its Redis, one way
TOGETHER = 256  # users in one append of small broadcasts, as in notifications/broadcaster.py
NODES = 16  # that store on one shard

CONNECT_S = 800e-6  # a node's: 450 measured, the rest is an estimate of what a recovery adds
KNOWN_S = 10e-6  # Redis's, for a connection made known or forgotten, in a batch
RECOVERY_S = 125e-6  # Redis's, for a recovery, each in a call of its own
BATCHED_RECOVERY_S = RECOVERY_S - CALL_S + CALL_S / 8  # where eight shared a call; not built
OPEN_TIMEOUT_S = 20.0  # the official client's
RECOVERY_TIMEOUT_S = 5.0  # inbox/redis.py, TIMEOUT_S; then the client is cut and comes back
CONNECTIONS = 25_000  # of a node, at most


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


# Until it is stored


@dataclass
class Post:
    """A broadcast, and on how many shards parts of it are still not stored."""

    users: int
    came_s: float
    left: int = 0
    took_s: float = 0.0


@dataclass
class Node:
    """One that stores on one shard: one append under way, and what waits for the next."""

    shard: int
    cut: int  # users of a broadcast in one append, at most
    waiting: deque[tuple[Post, int]] = field(default_factory=deque)
    under_way: list[tuple[Post, int]] = field(default_factory=list)  # and how many users are left after it

    def begin(self) -> float:
        """Begin the next append; return its cost."""
        cost = CALL_S
        users = 0
        while self.waiting and (not users or users + self.waiting[0][1] <= TOGETHER):
            post, part = self.waiting.popleft()
            now = min(part, self.cut)
            self.under_way.append((post, part - now))
            users += now
            cost += ENTRY_S + now * USER_S
        return cost

    def end(self) -> Iterator[Post]:
        """End the append; yield what is stored with it. The rest of a large one waits behind all who came meanwhile."""
        for post, left in self.under_way:
            if left:
                self.waiting.append((post, left))
            else:
                yield post
        self.under_way.clear()


def store(shards: int, rates: dict[int, float], count: int, cut: int = 10_000) -> list[Post]:
    """Return broadcasts, so many of them, that were stored. rates: how many come a second, by their number of users."""
    random.seed(1)
    # On which shards the users live, and how many on each; drawn beforehand, which is quicker.
    spreads = {
        users: [Counter(random.choices(range(shards), k=users)) for _ in range(1_000 if users < 10_000 else 50)]
        for users in rates
    }
    nodes = [[Node(shard, cut) for _ in range(NODES)] for shard in range(shards)]
    free_s = [0.0] * shards  # when Redis has done what was sent to it
    kinds, weights, rate = list(rates), list(rates.values()), sum(rates.values())
    events: list[tuple[float, int, Node | None]] = [(random.expovariate(rate), -1, None)]  # None: a broadcast comes
    posts: list[Post] = []
    turns = itertools.count()  # of two events at one time, the one that was made first
    while events:
        now, _, node = heapq.heappop(events)
        next_up = []  # who begins an append now
        if node is None:
            post = Post(random.choices(kinds, weights)[0], now)
            posts.append(post)
            spread = random.choice(spreads[post.users])
            post.left = len(spread)
            for shard, users in spread.items():
                storing = random.choice(nodes[shard])
                storing.waiting.append((post, users))
                if not storing.under_way:
                    next_up.append(storing)
            if len(posts) < count:
                heapq.heappush(events, (now + random.expovariate(rate), next(turns), None))
        else:
            for post in node.end():
                post.left -= 1
                post.took_s = now - post.came_s
            if node.waiting:
                next_up.append(node)
        for each in next_up:
            free_s[each.shard] = max(free_s[each.shard], now + HOP_S) + each.begin()
            heapq.heappush(events, (free_s[each.shard] + HOP_S, next(turns), each))
    return posts


def capacity(users: int, shards: int) -> float:
    """Return how many broadcasts a second keep the shards busy, each part in an append of its own."""
    touched = shards * (1 - (1 - 1 / shards) ** users)
    return shards / (touched * (CALL_S + ENTRY_S) + users * USER_S)


def stored() -> Iterator[str]:
    yield "| users | shards | alone, ms | 30 %: broadcasts/s | p50 / p99 ms | 60 % | p50 / p99 ms | 90 % | p50 / p99 ms |"
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for users in (1, 100, 10_000):
        for shards in (1, 4, 16, 64):
            alone = [post.took_s * 1e3 for post in store(shards, {users: 0.1}, 50)]
            cells = [f"{users:,}", str(shards), f"{percentile(alone, 0.5):.1f}"]
            for load in (0.3, 0.6, 0.9):
                rate = capacity(users, shards) * load
                took = [post.took_s * 1e3 for post in store(shards, {users: rate}, 10_000 if users == 1 else 1_000)]
                cells += [f"{rate:,.0f}", f"{percentile(took, 0.5):.1f} / {percentile(took, 0.99):.1f}"]
            yield f"| {' | '.join(cells)} |"


def beside() -> Iterator[str]:
    """Small broadcasts beside large ones, each kind 30 % of what the shards could do."""
    yield "| shards | in one append, users | small ones: p50 / p99 ms | large ones: p50 / p99 ms |"
    yield "|---:|---:|---:|---:|"
    for shards in (1, 4, 16, 64):
        for cut in (10_000, 500):
            rates = {users: capacity(users, shards) * 0.3 for users in (1, 10_000)}
            posts = store(shards, rates, 60_000, cut)
            cells = []
            for users in rates:
                took = [post.took_s * 1e3 for post in posts if post.users == users]
                cells.append(f"{percentile(took, 0.5):.1f} / {percentile(took, 0.99):.1f}")
            yield f"| {shards} | {cut:,} | {' | '.join(cells)} |"


# Until all are back


def back_off_s(attempt: int) -> float:
    """Return how long the official client waits: 1 s, doubled at each attempt, half more or less, 5 s at most."""
    return min(5.0, 2.0**attempt * random.uniform(0.5, 1.5))


@dataclass
class Storm:
    """When clients were live again, and how many attempts all of them needed."""

    live_s: list[float] = field(default_factory=list)
    attempts: int = 0


def storm(clients: int, survivors: int, recovery_s: float) -> Storm:
    """Let so many clients come back at once to the nodes that are left, all of them on one Redis."""
    random.seed(1)
    found = Storm()
    node_free_s = [0.0] * survivors
    redis_free_s = 0.0
    events = [(back_off_s(0), client, False) for client in range(clients)]
    tried = [0] * clients
    heapq.heapify(events)
    while events:
        now, client, connected = heapq.heappop(events)
        if not connected:
            found.attempts += 1
            node = random.randrange(survivors)
            node_free_s[node] = max(node_free_s[node], now) + CONNECT_S
            if node_free_s[node] - now > OPEN_TIMEOUT_S:
                tried[client] += 1
                heapq.heappush(events, (now + OPEN_TIMEOUT_S + back_off_s(tried[client]), client, False))
            else:
                tried[client] = 0
                heapq.heappush(events, (node_free_s[node], client, True))
        elif redis_free_s - now > RECOVERY_TIMEOUT_S:
            redis_free_s += 2 * KNOWN_S
            heapq.heappush(events, (now + RECOVERY_TIMEOUT_S + back_off_s(0), client, False))
        else:
            # Its old connection is forgotten, the new one made known, and what it missed is read.
            redis_free_s = max(redis_free_s, now) + 2 * KNOWN_S + recovery_s
            found.live_s.append(redis_free_s)
    return found


def storms() -> Iterator[str]:
    yield "| nodes | die | clients | a call each: p50 / p99 / last s | attempts each | eight in a call, s | attempts |"
    yield "|---:|---:|---:|---:|---:|---:|---:|"
    for nodes, dead in ((2, 1), (4, 1), (15, 1), (60, 1), (6, 2), (15, 5), (30, 10)):
        each = CONNECTIONS * 2 // 3  # so that two thirds of the nodes can hold all
        cells = [str(nodes), str(dead), f"{dead * each:,}"]
        for recovery_s in (RECOVERY_S, BATCHED_RECOVERY_S):
            found = storm(dead * each, nodes - dead, recovery_s)
            live = found.live_s
            cells.append(f"{percentile(live, 0.5):.1f} / {percentile(live, 0.99):.1f} / {max(live):.1f}")
            cells.append(f"{found.attempts / len(live):.2f}")
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    for title, lines in (
        ("Until a broadcast is stored", stored()),
        ("Small broadcasts beside those to 10,000 users, each kind 30 % of what the shards can do", beside()),
        ("Until all clients of dead nodes are live again", storms()),
    ):
        print(f"### {title}\n")
        for line in lines:
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
