"""The figures of the README are those of the tables in docs/performance.md, rounded."""

import pytest

from tests.documents.markdown import Row, page

# Column of the README -> row of docs/performance.md.
SERVERS = {
    "socket-server": "socket-server",
    "with SQLite inbox": "socket-server, SQLite inbox",
    "Flask-SocketIO": "Flask-SocketIO, stock",
    "Node, usual": "Node socket.io, as usually written",
    "Node, leanest": "Node socket.io, leanest",
}
# Row of the README -> section and columns of docs/performance.md.
FIGURES = {
    "deliveries/s to 1,000 users, one publisher that waits": (
        "One publisher, one post after the other, to 1,000 users",
        ("deliveries/s",),
    ),
    "the same, two publishers": ("Fan-out to 1,000 users", ("deliveries/s",)),
    "posts/s to one user, 8 publishers": ("POST /broadcast from 8 keep-alive publishers", ("posts/s",)),
    "one post to its receipt, ms, p50 / p99": ("One post, start to receipt", ("latency p50 ms", "latency p99 ms")),
    "connects/s, with a token": ("Connecting, with a token", ("connects/s",)),
    "KB for an idle connection": ("10,000 idle connections, heartbeat 5 s", ("KB/idle connection",)),
}

ROWS = [row for row in page("README.md").rows() if row.section == "How fast"]


def number(text: str) -> float:
    return float(text.replace(",", ""))


def test_the_table_has_the_known_rows_and_columns() -> None:
    assert [row.cells[0] for row in ROWS] == list(FIGURES)
    assert list(ROWS[0].header[1:]) == list(SERVERS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.cells[0])
def test_the_figures_are_the_measured_ones(row: Row) -> None:
    section, columns = FIGURES[row.cells[0]]
    measured = {each.cells[0]: each for each in page("docs/performance.md").rows() if each.section == section}
    for server, cell in zip(row.header[1:], row.cells[1:], strict=True):
        source = measured[SERVERS[server]]
        for shown, column in zip(cell.split(" / "), columns, strict=True):
            wanted = number(source.cells[source.header.index(column)])
            assert number(shown) == pytest.approx(wanted, rel=0.06), f"{server}, {column}"
