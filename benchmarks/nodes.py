"""One, two and three nodes over one Redis: `python -m benchmarks.nodes`.

Small broadcasts and new connections, spread over the nodes. All nodes and their Redis share one core, the load generator
has the other. So the rate cannot grow with the nodes; compare the processor time of a post and of a connect.
"""

import argparse
import json
import sys
from dataclasses import replace

from benchmarks import report, servers
from benchmarks.connections import connects
from benchmarks.publishing import spread
from benchmarks.swarm import pin

CONTESTANTS = (
    servers.STORING,
    *(replace(servers.NODES, name=f"nodes{count}", title=f"{count} over Redis", nodes=count) for count in (1, 2, 3)),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nodes", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=5, help="interleaved rounds, of which the medians are shown (default 5)"
    )
    options = parser.parse_args()
    servers.raise_file_limit()
    pin(servers.LOAD_CORE)
    names = {each.name: each.title for each in CONTESTANTS}
    for title, ask in (("Small broadcasts", spread), ("Connecting, with a token", connects)):
        rounds = []
        for _ in range(options.rounds):
            rounds.append({each.name: ask(each) for each in CONTESTANTS})
            print(f"# {json.dumps(rounds[-1])}", file=sys.stderr, flush=True)
        print(report.table(title, rounds, names), flush=True)


if __name__ == "__main__":
    main()
