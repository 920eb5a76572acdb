"""A simulation of a server with many shards: `python -m benchmarks.sharding`. No server runs.

How long until a broadcast is stored on all shards of its users, and until all clients of a lost node, or of a lost third of
the nodes, are live again. The costs were measured by benchmarks.bus, benchmarks.registry and benchmarks.nodes
(docs/design/scaling-plan.md). The random numbers are the same in every run.
"""

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

# Redis's processor time in seconds: for a call, for each notification in it, for each user of a notification.
CALL_S = 100e-6
ENTRY_S = 20e-6
USER_S = 4.5e-6
HOP_S = 100e-6  # network delay from a node to its Redis, one way
TOGETHER = 256  # users in one append of small broadcasts, as in notifications/broadcaster.py
NODES = 16  # nodes that store on one shard

CONNECT_S = 800e-6  # of a node: 450 µs measured, the rest is an estimate of what a recovery adds
KNOWN_S = 10e-6  # of Redis, for a connection written to the registry or removed, in a batch
RECOVERY_S = 125e-6  # of Redis, for a recovery in a call of its own
BATCHED_RECOVERY_S = RECOVERY_S - CALL_S + CALL_S / 8  # if eight shared a call; not built
OPEN_TIMEOUT_S = 20.0  # connect timeout of the official client
RECOVERY_TIMEOUT_S = 5.0  # TIMEOUT_S in inbox/redis/store.py; then the client is cut and reconnects
CONNECTIONS = 25_000  # maximum on a node


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


# Until a broadcast is stored


@dataclass
class Post:
    """A broadcast. left: the number of shards on which parts of it are not stored yet."""

    users: int
    came_s: float
    left: int = 0
    took_s: float = 0.0


@dataclass
class Node:
    """A node of one shard, with one append in progress and a queue for the next."""

    shard: int
    cut: int  # maximum number of users of a broadcast in one append
    waiting: deque[tuple[Post, int]] = field(default_factory=deque)
    in_progress: list[tuple[Post, int]] = field(default_factory=list)  # with the number of users left after it

    def begin(self) -> float:
        """Begin the next append; return its cost in seconds."""
        cost = CALL_S
        users = 0
        while self.waiting and (not users or users + self.waiting[0][1] <= TOGETHER):
            post, part = self.waiting.popleft()
            now = min(part, self.cut)
            self.in_progress.append((post, part - now))
            users += now
            cost += ENTRY_S + now * USER_S
        return cost

    def end(self) -> Iterator[Post]:
        """End the append; yield the broadcasts stored with it. The rest of a large one goes to the end of the queue."""
        for post, left in self.in_progress:
            if left:
                self.waiting.append((post, left))
            else:
                yield post
        self.in_progress.clear()


def store(shards: int, rates: dict[int, float], count: int, cut: int = 10_000) -> list[Post]:
    """Simulate `count` broadcasts and return them, all stored. rates: number of users -> broadcasts a second."""
    random.seed(1)
    # Number of users on each shard, for some broadcasts of each kind; drawn in advance, which is faster.
    spreads = {
        users: [Counter(random.choices(range(shards), k=users)) for _ in range(1_000 if users < 10_000 else 50)]
        for users in rates
    }
    nodes = [[Node(shard, cut) for _ in range(NODES)] for shard in range(shards)]
    free_s = [0.0] * shards  # when each Redis has done what was sent to it
    kinds, weights, rate = list(rates), list(rates.values()), sum(rates.values())
    events: list[tuple[float, int, Node | None]] = [(random.expovariate(rate), -1, None)]  # None: a broadcast arrives
    posts: list[Post] = []
    sequence = itertools.count()  # orders events with equal times
    while events:
        now, _, node = heapq.heappop(events)
        starting: list[Node] = []  # nodes that begin an append now
        if node is None:
            post = Post(random.choices(kinds, weights)[0], now)
            posts.append(post)
            spread = random.choice(spreads[post.users])
            post.left = len(spread)
            for shard, users in spread.items():
                storing = random.choice(nodes[shard])
                storing.waiting.append((post, users))
                if not storing.in_progress:
                    starting.append(storing)
            if len(posts) < count:
                heapq.heappush(events, (now + random.expovariate(rate), next(sequence), None))
        else:
            for post in node.end():
                post.left -= 1
                post.took_s = now - post.came_s
            if node.waiting:
                starting.append(node)
        for each in starting:
            free_s[each.shard] = max(free_s[each.shard], now + HOP_S) + each.begin()
            heapq.heappush(events, (free_s[each.shard] + HOP_S, next(sequence), each))
    return posts


def capacity(users: int, shards: int) -> float:
    """Return the broadcasts/s that keep the shards fully busy if each part is an append of its own."""
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
    """Yield a table: small broadcasts beside large ones, each kind 30 % of what the shards can do."""
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


# Until all clients are live again


def back_off_s(attempt: int) -> float:
    """Return the official client's reconnection delay: 1 s, doubled at each attempt, plus or minus half, 5 s at most."""
    return min(5.0, 2.0**attempt * random.uniform(0.5, 1.5))


@dataclass
class Storm:
    """live_s: when each client was live again; attempts: of all clients together."""

    live_s: list[float] = field(default_factory=list)
    attempts: int = 0


def storm(clients: int, survivors: int, recovery_s: float) -> Storm:
    """Simulate `clients` that reconnect at once to `survivors` nodes with one Redis."""
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
            # Remove its old connection from the registry, add the new one, and read what it missed.
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
