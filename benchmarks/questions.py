"""The questions of the comparison: a name for `--only`, a title for the table, and what measures it."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.connections import calls, connects, idle, many, storm
from benchmarks.publishing import batch, fan_out, latency, posts, spread
from benchmarks.servers import Contestant, Figures

PUBLISHERS = 16  # in a burst


@dataclass(frozen=True)
class Question:
    """ask: returns the figures of one contestant, empty if it does not apply. bare: it applies to the bare send too."""

    name: str
    title: str
    ask: Callable[[Contestant], Figures]
    bare: bool = False


QUESTIONS = (
    Question("fanout1000", "Fan-out to 1,000 users", fan_out(1_000, 1), bare=True),
    Question("fanout5000", "Fan-out to 5,000 users", fan_out(5_000, 1), bare=True),
    Question("fanout200x5", "Fan-out to 200 users with 5 devices each", fan_out(200, 5), bare=True),
    Question("alone1000", "One publisher, one post after the other, to 1,000 users", fan_out(1_000, 1, 1)),
    Question("burst1000", f"{PUBLISHERS} publishers at once, to 1,000 users", fan_out(1_000, 1, PUBLISHERS)),
    Question("burst5000", f"{PUBLISHERS} publishers at once, to 5,000 users", fan_out(5_000, 1, PUBLISHERS)),
    Question("burst200x5", f"{PUBLISHERS} publishers at once, to 200 users with 5 devices", fan_out(200, 5, PUBLISHERS)),
    Question("posts", "POST /broadcast from 8 keep-alive publishers", posts),
    Question("spread", "Small broadcasts over several nodes, all on one core", spread),
    Question("batch", "POST /broadcast/batch, 100 at a time", batch),
    Question("latency", "One post, start to receipt", latency),
    Question("storm", "10,000 clients come back at once, each having missed 10 of a million retained", storm),
    Question("calls", "The longest wait during 200 broadcasts/s to 100 users each", calls),
    Question("connects", "Connecting, with a token", connects),
    Question("idle", "10,000 idle connections, heartbeat 5 s", idle),
    Question("many", "50,000 connections on one process, or as many as the file limit allows", many),
)
