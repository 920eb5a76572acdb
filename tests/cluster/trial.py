"""Several nodes as one server, while back ends post to all of them and every user has two official clients on different
nodes: nothing may be lost, doubled or in another order, and every node knows the same counts.

By hand, as long as you like: python -m tests.cluster.trial --times 20 --ways kill,cut-off,redis-kill
"""

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.clients.crash import Trial
from tests.clients.official import TRANSPORTS
from tests.cluster.nodes import Cluster
from tests.redis_servers import DURABLE, RunningRedis

USERS = 300
# They share the cores with the nodes, Redis and the clients.
PUBLISHERS = 3


@contextlib.contextmanager
def trial(
    node: str,
    cluster: Cluster,
    seed: int,
    transports: Sequence[str],
    seconds: float | None = None,
    users: int = USERS,
    everybody: float = 0,
) -> Iterator[Trial]:
    """Connect clients and let publishers begin. seconds: how long what befalls the cluster takes; None: 1 to 8. everybody:
    which part of the posts goes to all users."""
    started = Trial(node, cluster, cluster.ways(seed, seconds), seed, transports, users, PUBLISHERS, everybody)
    try:
        started.begin()
        yield started
    finally:
        started.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.trial", description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="how often something happens")
    parser.add_argument("--seconds", type=float, help="how long it takes; 1 to 8 by default")
    parser.add_argument("--within", type=float, default=1.2, help="how many seconds go by before it, at most")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--ways", default="kill,stop,cut-off,restart,reload,redis-kill,redis-stop")
    parser.add_argument("--transports", default="websocket", help=f"any of {','.join(TRANSPORTS)}")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--everybody", type=float, default=0, help="which part of the posts goes to all users")
    parser.add_argument("--clocks", default="", help="how many seconds each node's clock is ahead, as -60,0,60 (faketime)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the nodes")
    options = parser.parse_args()
    node, redis_server = shutil.which("node"), shutil.which("redis-server")
    assert node is not None, "node is not installed"
    assert redis_server is not None, "redis-server is not installed"
    settings: dict[str, Any] = dict(each.split("=", 1) for each in options.set)
    clocks_s = [float(each) for each in options.clocks.split(",") if each]
    ways = options.ways.split(",")
    directory = Path(tempfile.mkdtemp(prefix="cluster-"))
    print(f"seed={options.seed} directory={directory}", flush=True)
    with contextlib.ExitStack() as stack:
        server = RunningRedis(redis_server, directory, *DURABLE)
        stack.callback(server.kill)
        cluster = stack.enter_context(Cluster(node, server, directory, options.nodes, clocks_s, **settings))
        running = stack.enter_context(
            trial(
                node,
                cluster,
                options.seed,
                options.transports.split(","),
                options.seconds,
                options.users,
                options.everybody,
            )
        )
        for number in range(1, options.times + 1):
            print(f"{time.strftime('%H:%M:%S')} {number} {running.hit(*ways, within_s=options.within)}", flush=True)
        counts = running.finish()
    for fault in counts.faults:
        print(fault)
    print(counts)
    return 0 if counts.sound else 1


if __name__ == "__main__":
    sys.exit(main())
