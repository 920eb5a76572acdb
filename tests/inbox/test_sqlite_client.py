"""What is particular to the SQLite client: its storage process process, from its start to every kind of end."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from socket_server.inbox.inbox import Appended, Entry, Inbox, InboxUnavailable, Read, Retention, Stored
from socket_server.inbox.sqlite import client, messages
from socket_server.inbox.sqlite import storage_process as storage_process_module
from socket_server.inbox.sqlite.client import SqliteClient
from socket_server.inbox.sqlite.file import SqliteFile
from tests.servers import ROOT, wait_for

RETENTION = Retention(1_000.0, 10_000)
MUCH = 1 << 30


def append(inbox: Inbox, entries: Sequence[Entry], after: int | None = None) -> Appended:
    return inbox.append(entries, after)


def say(inbox: Inbox, user_id: str, body: bytes) -> int:
    (offset,) = append(inbox, [Entry((user_id,), body)]).outcomes
    assert isinstance(offset, int)
    return offset


def missed(inbox: Inbox, user_id: str, after: int = 0) -> list[bytes]:
    return [each.notification for each in inbox.since(user_id, after, None, 10_000, MUCH).notifications]


MODULE = b"socket_server.inbox.sqlite.storage_process"


def storage_processes(parent: int | None = None) -> list[int]:
    """Return the storage processes that a process (None: this one) has started, in any of its threads."""
    found: list[int] = []
    for each in Path(f"/proc/{parent or os.getpid()}/task").glob("*/children"):
        found += [int(pid) for pid in each.read_text().split() if MODULE in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


def storage_process() -> int:
    (pid,) = storage_processes()
    return pid


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def works_again(inbox: SqliteClient, body: bytes) -> bool:
    try:
        say(inbox, "ada", body)
    except InboxUnavailable:
        return False
    return True


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[SqliteClient]:
    made = SqliteClient(str(tmp_path / "inbox.db"), RETENTION)
    yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed soon."""
    monkeypatch.setattr(client, "TIMEOUT_S", 1.5)  # a storage process takes 0.3 s to start, on a busy machine more
    monkeypatch.setattr(client, "_RESTART_S", 0.1)
    monkeypatch.setattr(client, "_END_S", 0.5)


# The storage process's life


def test_nothing_is_started_before_it_is_needed(tmp_path: Path) -> None:
    made = SqliteClient(str(tmp_path / "inbox.db"), RETENTION)
    assert storage_processes() == []
    made.close()
    assert not (tmp_path / "inbox.db").exists()


def test_the_storage_process_ends_with_close_and_leaves_one_tidy_file(tmp_path: Path, inbox: SqliteClient) -> None:
    say(inbox, "ada", b"1")
    pid = storage_process()
    inbox.close()
    assert not lives(pid)
    assert [each.name for each in tmp_path.iterdir()] == ["inbox.db"]


def test_the_storage_process_has_none_of_the_servers_sockets(inbox: SqliteClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        inbox.open()
        opened = [os.readlink(each) for each in Path(f"/proc/{storage_process()}/fd").iterdir()]
        listening = os.readlink(f"/proc/self/fd/{listener.fileno()}")
    assert listening not in opened
    assert len([each for each in opened if each.startswith("socket:")]) == 3


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_the_storage_process_stays_when_its_whole_group_is_told_to_end(inbox: SqliteClient, sig: signal.Signals) -> None:
    """systemd and a terminal signal every process: the server drains first, and needs its inbox for that."""
    inbox.open()
    os.kill(storage_process(), sig)
    for number in range(3):
        say(inbox, "ada", b"%d" % number)
    assert lives(storage_process())


_SERVER = """
import sys, time
from socket_server.inbox.sqlite.client import SqliteClient
from socket_server.inbox.inbox import Entry, Retention

inbox = SqliteClient(sys.argv[1], Retention())
number = 0
while True:
    inbox.append([Entry(("ada",), b"%d" % number)], None)
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("busy", [True, False], ids=["at work", "stopped"])
def test_the_storage_process_ends_when_its_server_is_killed(tmp_path: Path, busy: bool) -> None:
    path = str(tmp_path / "inbox.db")
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER, path], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        for _ in range(20):
            server.stdout.readline()
        (pid,) = storage_processes(server.pid)
        if not busy:
            os.kill(pid, signal.SIGSTOP)
        server.kill()
        if not busy:
            os.kill(pid, signal.SIGCONT)
        acknowledged = 20 + len([line for line in server.stdout if line.endswith("\n")])
        wait_for(lambda: not lives(pid), 5, "the end of the storage process")
        assert server.stderr.read() == ""
    again = SqliteClient(path, RETENTION)
    # Nothing acknowledged is missing; one more may be there, whose answer did not arrive.
    assert len(missed(again, "ada")) - acknowledged in (0, 1)
    again.close()


# Its replacement


def test_a_killed_storage_process_is_replaced_and_nothing_is_missing(inbox: SqliteClient, impatient: None) -> None:
    said = [say(inbox, "ada", b"1")]
    for number in range(3):
        before = storage_process()
        os.kill(before, signal.SIGKILL)
        wait_for(lambda number=number: works_again(inbox, b"%d" % (number + 2)), what="another storage process")
        assert storage_process() != before
        said.append(inbox.open())
    assert said == sorted(set(said))
    assert missed(inbox, "ada") == [b"1", b"2", b"3", b"4"]


def test_a_storage_process_that_does_not_answer_is_replaced(inbox: SqliteClient, impatient: None) -> None:
    say(inbox, "ada", b"1")
    before = storage_process()
    os.kill(before, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(InboxUnavailable, match=r"it did not answer for 1\.5 s") as caught:
        inbox.check()
    assert 0.4 < time.monotonic() - started < 3
    assert "another one is started" in str(caught.value)
    wait_for(lambda: works_again(inbox, b"2"), what="another storage process")
    assert storage_process() != before
    assert not lives(before)
    assert missed(inbox, "ada") == [b"1", b"2"]


def test_all_who_wait_for_a_storage_process_that_is_lost_are_told_and_it_is_logged_once(
    inbox: SqliteClient, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(client._log, "error", lambda text, *given: lines.append(text % given))
    inbox.open()
    os.kill(storage_process(), signal.SIGSTOP)
    calls = [inbox.check, lambda: say(inbox, "ada", b"x"), lambda: missed(inbox, "ada"), lambda: inbox.forget("ada")] * 3
    refused, threads = in_threads(calls)
    wait_for(lambda: sum(map(waits_for_the_storage_process, threads)) == len(threads), what="threads that wait")
    os.kill(storage_process(), signal.SIGKILL)
    for each in threads:
        each.join(5)
    assert not any(each.is_alive() for each in threads)
    assert len(refused) >= 3  # queued callers may have been served by the next storage process already
    assert len(lines) == 1, lines
    wait_for(lambda: works_again(inbox, b"1"), what="another storage process")


def test_no_second_storage_process_is_started_within_a_second(inbox: SqliteClient) -> None:
    inbox.open()
    os.kill(storage_process(), signal.SIGKILL)
    with pytest.raises(InboxUnavailable, match="another one is started"):
        inbox.check()
    with pytest.raises(InboxUnavailable, match="try again in a second"):
        inbox.check()
    wait_for(lambda: works_again(inbox, b"1"), what="another storage process")


def test_a_storage_process_that_cannot_be_started_is_an_unavailable_inbox(
    inbox: SqliteClient, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(InboxUnavailable, match="cannot be started"):
            inbox.open()
    wait_for(lambda: works_again(inbox, b"1"), what="a storage process")


def test_replacements_leave_no_files_and_threads_behind(inbox: SqliteClient, impatient: None) -> None:
    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    say(inbox, "ada", b"0")
    before = held()
    for number in range(4):
        os.kill(storage_process(), signal.SIGKILL)
        wait_for(lambda number=number: works_again(inbox, b"%d" % number), what="another storage process")
    wait_for(lambda: held() <= before, what=f"no more than {before}")


# close() and many at once


def in_threads(calls: Sequence[Callable[[], object]]) -> tuple[list[str], list[threading.Thread]]:
    """Start calls in threads of their own; return what they are refused with (growing), and the threads."""
    refused: list[str] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except InboxUnavailable as error:
            refused.append(str(error))

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for each in threads:
        each.start()
    return refused, threads


def test_close_ends_the_wait_of_every_caller(inbox: SqliteClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_END_S", 0.5)
    inbox.open()
    pid = storage_process()
    os.kill(pid, signal.SIGSTOP)
    calls = [inbox.check, lambda: say(inbox, "ada", b"x"), lambda: missed(inbox, "ada"), lambda: inbox.amend("key", b"")]
    refused, threads = in_threads(calls * 2)
    wait_for(lambda: sum(map(waits_for_the_storage_process, threads)) == len(threads), what="threads that wait")
    started = time.monotonic()
    inbox.close()
    for each in threads:
        each.join(5)
    assert time.monotonic() - started < 4
    assert refused == ["the inbox is closed"] * 8
    assert not lives(pid)


def waits_for_the_storage_process(thread: threading.Thread) -> bool:
    """Whether a thread is within the storage process's answer, or in the line for it."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_name in ("ask", "since"):
            return True
        frame = frame.f_back
    return False


def test_after_close_every_call_is_refused_and_nothing_is_started(inbox: SqliteClient) -> None:
    say(inbox, "ada", b"1")
    inbox.close()
    inbox.close()
    for call in (inbox.open, inbox.check, lambda: say(inbox, "ada", b"2"), lambda: missed(inbox, "ada")):
        with pytest.raises(InboxUnavailable, match="the inbox is closed"):
            call()
    assert storage_processes() == []


def test_readers_at_once_get_each_their_own_page(inbox: SqliteClient) -> None:
    count = client.MAX_READS * 3
    head = inbox.open()
    outcomes = append(inbox, [Entry((f"user {number}",), b"%d" % number) for number in range(count)], head).outcomes
    found: dict[int, tuple[Stored, ...]] = {}

    def read(number: int) -> None:
        found[number] = inbox.since(f"user {number}", head, None, 10, MUCH).notifications

    refused, threads = in_threads([lambda number=number: read(number) for number in range(count)])  # type: ignore[misc]
    for each in threads:
        each.join(10)
    assert not refused
    assert found == {number: (Stored(at, b"%d" % number),) for number, at in enumerate(outcomes)}  # type: ignore[arg-type]


def test_the_answer_to_a_killed_caller_reaches_no_other_caller(
    inbox: SqliteClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A greenlet may be killed while it waits; the next caller must not be handed its answer."""
    say(inbox, "eve", b"of eve")
    say(inbox, "ada", b"of ada")
    receive = messages.receive

    def killed(channel: socket.socket) -> bytes | None:
        monkeypatch.setattr(messages, "receive", receive)
        raise KeyboardInterrupt

    monkeypatch.setattr(messages, "receive", killed)
    with pytest.raises(KeyboardInterrupt):
        missed(inbox, "eve")

    def of_ada() -> list[bytes]:
        try:
            return missed(inbox, "ada")
        except InboxUnavailable:
            return []

    assert wait_for(of_ada, what="another storage process") == [b"of ada"]


def test_reads_that_take_long_are_answered_a_few_at_a_time(tmp_path: Path) -> None:
    """An append that arrives between them does not wait for all of them."""
    store = SqliteFile(str(tmp_path / "inbox.db"), Retention(max_per_user=20_000))
    store.open()
    store.append([Entry(("ada",), b"x")] * 20_000)
    read = Read("ada", 0, None, 10, MUCH)
    few = storage_process_module.answer(store, messages.Since((read,) * 32))
    assert isinstance(few, messages.Pages)
    assert 1 <= len(few.pages) < 32
    store.close()


def test_many_long_reads_at_once_are_all_answered(tmp_path: Path) -> None:
    counted: list[int] = []
    inbox = SqliteClient(str(tmp_path / "inbox.db"), Retention(max_per_user=20_000))
    try:
        inbox.append([Entry(("ada",), b"x")] * 20_000)
        _, threads = in_threads([lambda: counted.append(inbox.since("ada", 0, None, 10, MUCH).total)] * 12)
        for each in threads:
            each.join(30)
    finally:
        inbox.close()
    assert counted == [20_000] * 12
