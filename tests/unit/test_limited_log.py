"""Log lines that clients can cause at will are bounded, and the rest is counted."""

import threading

from socket_server.limited_log import LINES_PER_SECOND, LimitedLog
from tests.servers import wait_for


def test_above_the_rate_lines_are_counted_in_one_line() -> None:
    lines: list[str] = []
    log = LimitedLog(lambda message, *args: lines.append(message % args), "more of these")
    for number in range(10 * LINES_PER_SECOND):
        log("line %d", number)
    assert lines == [f"line {number}" for number in range(LINES_PER_SECOND)]
    wait_for(lambda: len(lines) > LINES_PER_SECOND, what="the line that counts the rest")
    assert lines[LINES_PER_SECOND:] == [f"more of these: left_out={9 * LINES_PER_SECOND}"]
    log("later")
    assert lines[-1] == "later"


def test_no_line_is_lost_or_counted_twice_by_threads() -> None:
    lines: list[str] = []
    log = LimitedLog(lambda message, *args: lines.append(message % args), "more")
    threads = [threading.Thread(target=lambda: [log("x") for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: lines[-1].startswith("more"), what="the count")
    left_out = sum(int(line.rpartition("=")[2]) for line in lines if line.startswith("more"))
    assert lines.count("x") + left_out == 400
