"""Compare this server with others: `make bench`, or `python -m benchmarks --only fanout1000 posts --rounds 3`."""

import argparse
import json
import platform
import sys
from datetime import UTC, datetime

from benchmarks import report, servers
from benchmarks.questions import QUESTIONS
from benchmarks.servers import ROOT
from benchmarks.swarm import pin

START = "<!-- written by make bench: begin -->"
END = "<!-- written by make bench: end -->"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=5, help="interleaved rounds, of which the medians are shown (default 5)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=[question.name for question in QUESTIONS], help="ask only these questions"
    )
    parser.add_argument("--against", nargs="+", choices=[each.name for each in servers.ALL], help="ask only these servers")
    parser.add_argument("--write", action="store_true", help="write the tables to docs/performance.md and the plot")
    options = parser.parse_args()

    servers.raise_file_limit()
    pin(servers.LOAD_CORE)
    contestants = [each for each in servers.ALL if not options.against or each.name in options.against]
    for each in list(contestants):
        reason = servers.available(each)
        if reason:
            print(f"without {each.title}: {reason}", file=sys.stderr)
            contestants.remove(each)
    names = {each.name: each.title for each in contestants}
    sections, plots = [], []
    for question in QUESTIONS:
        if options.only and question.name not in options.only:
            continue
        rounds = []
        for _ in range(options.rounds):
            rounds.append({each.name: question.ask(each) for each in contestants if question.bare or not each.bare})
            print(f"# {question.name} {json.dumps(rounds[-1])}", file=sys.stderr, flush=True)
        section = report.table(question.title, rounds, names)
        print(section, flush=True)
        sections.append(section)
        if question.name == "fanout1000":
            bars = [(title, report.median(rounds, name, "deliveries/s") or 0) for name, title in names.items()]
            plots.append(report.plot(question.title, "deliveries/s on one core", bars))
    if options.write:
        write(sections, plots)
    return 0


def write(sections: list[str], plots: list[str]) -> None:
    """Replace the tables between the markers in docs/performance.md, with date, machine and command; and the plot."""
    page = ROOT / "docs/performance.md"
    head = (
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {platform.machine()}, Linux, Python {platform.python_version()}; server "
        f"on one core, load on another. Command: `python -m benchmarks {' '.join(sys.argv[1:])}`. Medians; “ours is” is "
        "the median of the ratios of each round, of the first figure.\n"
    )
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{START}\n{head}\n" + "\n".join(sections) + f"{END}{after}", encoding="utf-8")
    for plot in plots:
        (ROOT / "docs/fanout.svg").write_text(plot, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
