"""What is particular to the SQLite store: its file, who else has it open, and what a killed process leaves behind."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socket_server.inbox.inbox import Appended, Claim, Entry, Inbox, InboxUnavailable, Page, Record, Retention, Stored
from socket_server.inbox.sqlite import database, maintenance, postings
from socket_server.inbox.sqlite.database import FORMAT
from tests.inbox.conftest import RETENTION, FakeClock
from tests.inbox.files import MaintainedFile
from tests.servers import ROOT

ALL = 1_000
MUCH = 1 << 30
LARGE = Retention(ttl_s=1e6, max_per_user=100_000)


def append(inbox: Inbox, entries: Sequence[Entry], after: int | None = None) -> Appended:
    return inbox.append(entries, after)


def say(inbox: Inbox, user_id: str, *bodies: bytes) -> list[int]:
    """Append notifications for one user, one after the other; return their offsets."""
    outcomes = [append(inbox, [Entry((user_id,), body)]).outcomes[0] for body in bodies]
    return [each for each in outcomes if isinstance(each, int)]


def missed(inbox: Inbox, user_id: str, after: int) -> Page:
    return inbox.since(user_id, after, None, ALL, MUCH)


def bodies(page: Page) -> list[bytes]:
    return [each.notification for each in page.notifications]


def maintained(inbox: MaintainedFile) -> None:
    """Let the store do all that is due."""
    for _ in range(100_000):
        if not inbox.maintain():
            return
    raise AssertionError("maintenance does not end")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


@pytest.fixture
def opened() -> Iterator[list[MaintainedFile]]:
    """Stores that are closed in the end."""
    stores: list[MaintainedFile] = []
    yield stores
    for each in stores:
        each.close()


# The file


def test_the_file_and_its_directory_are_the_servers_alone(tmp_path: Path) -> None:
    directory = tmp_path / "made" / "for it"
    before = os.umask(0)
    try:
        inbox = MaintainedFile(str(directory / "inbox.db"), RETENTION)
        inbox.open()
        say(inbox, "ada", b"1")
        modes = {each.name: each.stat().st_mode & 0o777 for each in directory.iterdir()}
        inbox.close()
    finally:
        os.umask(before)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert modes == {"inbox.db": 0o600, "inbox.db-wal": 0o600, "inbox.db-shm": 0o600}


def test_another_format_is_refused_with_the_mend_and_left_alone(path: Path) -> None:
    inbox = MaintainedFile(str(path), RETENTION)
    head = inbox.open()
    say(inbox, "ada", b"1")
    inbox.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    for act in (inbox.open, inbox.check, lambda: say(inbox, "ada", b"2"), lambda: missed(inbox, "ada", head)):
        with pytest.raises(InboxUnavailable) as caught:
            act()
        assert str(path) in str(caught.value)
        assert f"format {FORMAT + 1} and this server's is {FORMAT}" in str(caught.value)
        assert "INBOX_URL" in str(caught.value)
    inbox.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT body FROM notifications").fetchall() == [(b"1",)]
        assert db.execute("PRAGMA user_version").fetchone() == (FORMAT + 1,)


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
        db.execute("INSERT INTO theirs VALUES (1)")
        db.commit()
    before = path.read_bytes()
    inbox = MaintainedFile(str(path), RETENTION)
    with pytest.raises(InboxUnavailable, match="INBOX_URL"):
        inbox.open()
    assert path.read_bytes() == before


def test_an_empty_file_becomes_an_inbox(path: Path) -> None:
    path.touch()
    inbox = MaintainedFile(str(path), RETENTION)
    head = inbox.open()
    say(inbox, "ada", b"1")
    assert bodies(missed(inbox, "ada", head)) == [b"1"]
    inbox.close()


@pytest.mark.parametrize("name", ["in box.db", "תיבה.db", "50%25.db", "a?b#c.db", "file:x.db", ":memory:"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    inbox = MaintainedFile(str(tmp_path / name), RETENTION)
    inbox.open()
    inbox.close()
    assert [each.name for each in tmp_path.iterdir()] == [name]


# Two processes on one file


@pytest.mark.parametrize("seed", range(5))
def test_two_stores_on_one_file_hand_out_the_same_order(path: Path, opened: list[MaintainedFile], seed: int) -> None:
    """A reload: the old worker finishes while the new one begins. Each delivers what the other has stored, once."""
    dice, clock = random.Random(seed), FakeClock()
    stores = [MaintainedFile(str(path), LARGE, clock, index_at=20) for _ in range(2)]
    opened += stores
    start = stores[0].open()
    assert stores[1].open() == start
    delivered: list[list[tuple[int, bytes]]] = [[], []]

    def act(number: int, count: int) -> None:
        entries = [Entry(("ada", f"user {dice.randrange(9)}"), dice.randbytes(8)) for _ in range(count)]
        mine = delivered[number]
        appended = append(stores[number], entries, mine[-1][0] if mine else start)
        assert all(each.user_ids[0] == "ada" for each in appended.foreign_records)
        mine += [(each.offset, each.notification) for each in appended.foreign_records]
        mine += [(at, entry.notification) for at, entry in zip(appended.outcomes, entries, strict=True)]  # type: ignore[misc]

    for _ in range(150):
        act(dice.randrange(2), dice.randrange(4))
        for _ in range(dice.randrange(3)):
            stores[dice.randrange(2)].maintain()
        clock.step(dice.choice([0, 1e-6, 0.5]))
        act(dice.randrange(2), 0)
        act(0, 0)
        act(1, 0)
    assert delivered[0] == delivered[1]
    assert [at for at, _ in delivered[0]] == sorted({at for at, _ in delivered[0]})
    for store in stores:
        assert [(each.offset, each.notification) for each in missed(store, "ada", start).notifications] == delivered[0]


def test_what_another_store_has_stored_is_handed_out_with_its_users(path: Path, opened: list[MaintainedFile]) -> None:
    old, new = MaintainedFile(str(path), RETENTION), MaintainedFile(str(path), RETENTION)
    opened += [old, new]
    head = old.open()
    new.open()
    (first,) = append(old, [Entry(("ada", "שלום", "a\0b"), b"\0\xff")], head).outcomes
    assert isinstance(first, int)
    appended = append(new, [Entry(("bob",), b"2")], head)
    assert appended.foreign_records == (Record(first, ("ada", "שלום", "a\0b"), b"\0\xff"),)
    assert append(new, [], appended.outcomes[0]).foreign_records == ()  # type: ignore[arg-type]


def test_a_key_that_another_store_has_used_is_a_repeat(path: Path, opened: list[MaintainedFile]) -> None:
    old, new = MaintainedFile(str(path), RETENTION), MaintainedFile(str(path), RETENTION)
    opened += [old, new]
    entry = Entry(("ada",), b"1", claim=Claim("key", b"digest", b"answer"))
    head = old.open()
    new.open()
    (first,) = append(old, [entry]).outcomes
    (repeat,) = append(new, [entry]).outcomes
    assert (repeat.offset, repeat.digest, repeat.answer) == (first, b"digest", b"answer")  # type: ignore[union-attr]
    assert missed(new, "ada", head).total == 1


# kill -9

_APPEND_FOREVER = """
import sys
from socket_server.inbox.inbox import Entry, Retention
from tests.inbox.files import MaintainedFile

inbox = MaintainedFile(sys.argv[1], Retention(1e6, 100_000), index_at=60)
head, number = inbox.open(), 0
while True:
    entries = [Entry(("ada", f"user {number % 7}"), b"%d" % each) for each in range(number, number + 3)]
    *_, head = outcomes = inbox.append(entries, head).outcomes
    print(number, *outcomes, flush=True)
    number += 3
    inbox.maintain()
"""


def test_after_a_kill_all_that_was_acknowledged_is_there_and_offsets_go_on(path: Path) -> None:
    acknowledged: list[Stored] = []
    newest = 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", _APPEND_FOREVER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(60)]
            process.send_signal(signal.SIGKILL)
            lines += [line for line in process.stdout if line.endswith("\n")]
        assert process.wait() == -signal.SIGKILL
        for line in lines:
            number, *offsets = map(int, line.split())
            assert newest < min(offsets)
            assert offsets == sorted(set(offsets))
            newest = offsets[-1]
            acknowledged += [Stored(at, b"%d" % (number + index)) for index, at in enumerate(offsets)]
        inbox = MaintainedFile(str(path), LARGE)
        assert inbox.open() >= newest
        page = inbox.since("ada", 0, None, 100_000, MUCH)
        assert set(acknowledged) <= set(page.notifications)
        # At most what was under way each time is there beyond that: an append stands or falls as a whole.
        unacknowledged = page.total - len(acknowledged)
        assert unacknowledged % 3 == 0
        assert unacknowledged <= 9
        listed = {
            each.offset for user in range(7) for each in inbox.since(f"user {user}", 0, None, 100_000, MUCH).notifications
        }
        assert listed == {each.offset for each in page.notifications}
        newest = page.notifications[-1].offset
        inbox.close()


# Retention


def size(path: Path) -> int:
    return sum(each.stat().st_size for each in path.parent.glob(path.name + "*"))


def test_retention_by_count_bounds_the_file(path: Path) -> None:
    inbox = MaintainedFile(str(path), Retention(1e6, 100), index_at=500)
    inbox.open()
    sizes = []
    for _ in range(8):
        for _ in range(10):
            append(inbox, [Entry((f"user {number % 10}",), os.urandom(500)) for number in range(200)])
            maintained(inbox)
        sizes.append(size(path))
    inbox.close()
    assert sizes[-1] <= max(sizes[1:3]) * 1.1, sizes  # 16,000 were stored, of which 1,000 stay
    with contextlib.closing(sqlite3.connect(path)) as db:
        (count,) = db.execute("SELECT count(*) FROM notifications").fetchone()
    assert count <= 10 * (100 + postings.CHUNK) + 500


def test_retention_by_age_bounds_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "PURGE_EVERY_S", 0.0)
    monkeypatch.setattr(maintenance, "SWEEP_EVERY_S", 0.0)
    clock = FakeClock()
    inbox = MaintainedFile(str(path), Retention(100.0, 100_000), clock, index_at=500)
    inbox.open()
    sizes = []
    for second in range(800):
        # Another set of users every ten seconds: their posting lists must go too.
        append(inbox, [Entry((f"user {second // 10} {number % 10}",), os.urandom(500)) for number in range(20)])
        clock.step(1)
        maintained_for_a_while(inbox)
        if second % 100 == 99:
            sizes.append(size(path))
    inbox.close()
    assert sizes[-1] <= max(sizes[1:3]) * 1.1, sizes
    with contextlib.closing(sqlite3.connect(path)) as db:
        counts = [
            db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("notifications", "postings", "pending")
        ]
    assert counts[0] <= 2_100
    assert counts[1] <= 200
    assert counts[2] <= 2_100


def maintained_for_a_while(inbox: MaintainedFile) -> None:
    """If the store may look for old notifications again at once, it never ends."""
    for _ in range(20):
        if not inbox.maintain():
            return


def test_the_room_of_what_has_gone_is_given_back_to_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "PURGE_EVERY_S", 0.0)
    monkeypatch.setattr(maintenance, "_MIN_FREE_PAGES", 10)
    clock = FakeClock()
    inbox = MaintainedFile(str(path), RETENTION, clock)
    inbox.open()
    append(inbox, [Entry((f"user {number}",), os.urandom(2_000)) for number in range(2_000)])
    maintained(inbox)
    inbox.close()
    full = size(path)
    inbox.open()
    clock.step(RETENTION.ttl_s + 1)
    maintained(inbox)
    inbox.close()
    assert size(path) < full / 4


# Posting lists


@dataclass
class Model:
    """Posting lists in as few words as possible."""

    most: int
    began: int
    lists: dict[str, list[int]] = field(default_factory=dict)

    def add(self, users: Sequence[str], offset: int) -> None:
        for user in users:
            self.lists.setdefault(user, []).append(offset)

    def page(self, user: str, after: int) -> Page:
        offsets = self.lists.get(user, [])
        found = [Stored(each, b"%d" % each) for each in offsets[-self.most :] if each > after]
        dropped = max([self.began, *offsets[: -self.most]])
        return Page(tuple(found), len(found), dropped <= after)


users = st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True).map(tuple)
steps = st.one_of(
    st.tuples(st.just("append"), st.lists(users, min_size=1, max_size=12)),
    st.tuples(st.just("maintain"), st.integers(1, 6)),
    st.tuples(st.just("reopen"), st.just(0)),
)


@settings(max_examples=40, deadline=None)
@given(
    script=st.lists(steps, min_size=1, max_size=20),
    most=st.sampled_from([1, 3, 4, 9, 50]),
    index_at=st.integers(1, 60),
    asking=st.booleans(),
)
def test_when_lists_of_users_are_dealt_out_and_moved_to_the_disk_changes_no_answer(
    script: list[tuple[str, object]], most: int, index_at: int, asking: bool
) -> None:
    """asking: after every step, and not only after the last."""
    clock = FakeClock()
    with (
        tempfile.TemporaryDirectory() as directory,
        pytest.MonkeyPatch.context() as patch,
    ):
        # A slice moves a user or two: between any two of them something else may come.
        patch.setattr(postings, "CHUNK", 4)
        patch.setattr(postings, "_USERS_PER_CLOCK_READ", 1)
        patch.setattr(postings, "_MAX_UNDISTRIBUTED", 12)
        patch.setattr(maintenance, "SLICE_S", 2e-5)

        def make() -> MaintainedFile:
            return MaintainedFile(f"{directory}/inbox.db", Retention(1e6, most), clock, index_at=index_at)

        inbox = make()
        model = Model(most, inbox.open())
        places = [model.began]
        for number, (kind, what) in enumerate(script, 1):
            if kind == "append":
                assert isinstance(what, list)
                for each in what:
                    clock.step(1e-6)
                    (offset,) = append(inbox, [Entry(each, b"%d" % clock.now)], places[-1]).outcomes
                    assert offset == clock.now
                    model.add(each, clock.now)
                    places.append(clock.now)
            elif kind == "maintain":
                assert isinstance(what, int)
                for _ in range(what):
                    inbox.maintain()
                clock.step(maintenance.HANDOVER_S / 2)
            else:
                inbox.close()  # loses all that is in memory, as a kill does
                inbox = make()
            if not asking and number < len(script):
                continue
            for user in "abcdefgh":
                for after in {places[0] - 1, places[0], places[len(places) // 2], places[-1]}:
                    assert missed(inbox, user, after) == model.page(user, after), (user, after)
        inbox.close()


def test_of_lists_that_are_told_in_turn_each_user_keeps_its_newest(path: Path, opened: list[MaintainedFile]) -> None:
    inbox = MaintainedFile(str(path), Retention(1e6, 3), FakeClock())
    opened.append(inbox)
    inbox.open()
    offsets = [
        append(inbox, [Entry(("ada", other), other.encode())]).outcomes[0] for other in ("bob", "eve", "bob", "eve", "bob")
    ]
    assert bodies(missed(inbox, "ada", 0)) == [b"bob", b"eve", b"bob"]
    newest_dropped = offsets[1]
    assert isinstance(newest_dropped, int)
    assert missed(inbox, "ada", newest_dropped).complete
    assert not missed(inbox, "ada", newest_dropped - 1).complete
    assert [missed(inbox, user, 0).total for user in ("bob", "eve")] == [3, 2]


# Privacy

USER = "Grace-Hopper-1906"
SECRET = b"for her eyes only "


def raw(path: Path) -> bytes:
    """Return all bytes of the file and of those beside it."""
    return b"".join(each.read_bytes() for each in sorted(path.parent.glob(path.name + "*")))


def tell_secrets(inbox: MaintainedFile, count: int) -> None:
    """Give a user notifications, some of them others' too, among those of others."""
    for number in range(count):
        entries = [Entry((USER,), SECRET + b"%d" % number * 50)]
        entries += [Entry((f"other {each}", f"another {number}"), b"theirs" * 20) for each in range(3)]
        entries.append(Entry(("another", USER, "other 1"), b"news for three " * 9))
        append(inbox, entries, inbox.open())


def forgotten(path: Path, opened: list[MaintainedFile], moved: str) -> bytes:
    """Return all bytes of an inbox that has forgotten the user, in one of the states that an inbox may be in."""
    clock = FakeClock()
    inbox = MaintainedFile(str(path), LARGE, clock, index_at=10**9 if moved == "nothing moved" else 1)
    opened.append(inbox)
    inbox.open()
    inbox.forget("another user")  # whatever that switched on or off: it holds for this user too
    tell_secrets(inbox, 40)
    if moved != "nothing moved":
        maintained(inbox)
        clock.step(maintenance.HANDOVER_S + 1)  # from then on `pending` lets go of what was moved
        say(inbox, "another", b"news")
        maintained(inbox)
    if moved == "some moved":
        tell_secrets(inbox, 40)
    assert SECRET in raw(path)
    assert USER.encode() in raw(path)
    inbox.forget(USER)
    found = raw(path)
    assert missed(inbox, "other 1", 0).total > 0
    inbox.close()
    return found + raw(path)


MOVED = pytest.mark.parametrize("moved", ["nothing moved", "all moved", "some moved"])


@MOVED
def test_after_forget_no_body_of_the_user_is_left(path: Path, opened: list[MaintainedFile], moved: str) -> None:
    assert SECRET not in forgotten(path, opened, moved)


@MOVED
def test_after_forget_one_mark_of_the_user_is_left(path: Path, opened: list[MaintainedFile], moved: str) -> None:
    """It says that something was dropped, until retention by age would have."""
    assert forgotten(path, opened, moved).count(USER.encode()) == 2  # in the open file, and in the closed one


def test_after_forget_nothing_is_left_of_what_retention_had_dropped_before(
    path: Path, opened: list[MaintainedFile]
) -> None:
    inbox = MaintainedFile(str(path), Retention(1e6, 5), FakeClock(), index_at=1)
    opened.append(inbox)
    inbox.open()
    inbox.forget("another user")
    for _ in range(5):
        tell_secrets(inbox, 60)
        maintained(inbox)
    inbox.forget(USER)
    assert SECRET not in raw(path)


def test_after_forget_no_other_store_on_the_file_brings_the_user_back(path: Path, opened: list[MaintainedFile]) -> None:
    clock = FakeClock()
    stores = [MaintainedFile(str(path), LARGE, clock, index_at=1) for _ in range(2)]
    opened += stores
    for each in stores:
        each.open()
    tell_secrets(stores[0], 5)
    assert missed(stores[1], USER, 0).total == 10
    stores[0].forget(USER)
    assert missed(stores[1], USER, 0).total == 0
    clock.step(maintenance.HANDOVER_S + 1)
    for each in stores:
        maintained(each)
    assert SECRET not in raw(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM pending WHERE instr(users, ?)", (USER.encode(),)).fetchone() == (0,)
        assert db.execute("SELECT sum(length(offsets)) FROM postings WHERE user = ?", (USER,)).fetchone() in ((0,), (None,))


def test_a_forgotten_user_is_told_so_and_receives_again_after_reopening(path: Path) -> None:
    inbox = MaintainedFile(str(path), RETENTION)
    head = inbox.open()
    say(inbox, USER, b"1", b"2")
    assert inbox.forget(USER) == 2
    inbox.close()
    page = missed(inbox, USER, head)
    assert (page.total, page.complete) == (0, False)
    newest = inbox.open()
    say(inbox, USER, b"3")
    page = missed(inbox, USER, newest)
    assert (bodies(page), page.complete) == ([b"3"], True)
    inbox.close()


# Trouble (what a server does about it: tests/integration/test_inbox_faults.py)


def test_a_file_that_is_removed_is_made_anew_and_used_from_then_on(path: Path, opened: list[MaintainedFile]) -> None:
    inbox, later = MaintainedFile(str(path), RETENTION), MaintainedFile(str(path), RETENTION)
    opened += [inbox, later]
    inbox.open()
    (first,) = say(inbox, "ada", b"old")
    path.unlink()
    (second,) = say(inbox, "ada", b"new")
    assert second > first
    assert bodies(missed(inbox, "ada", 0)) == [b"new"]
    assert not missed(inbox, "ada", first).complete
    inbox.close()
    assert bodies(missed(later, "ada", 0)) == [b"new"]


def test_an_append_that_meets_a_lock_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_S", 0.05)
    inbox = MaintainedFile(str(path), RETENTION)
    head = inbox.open()
    say(inbox, "ada", b"1")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        for act in (lambda: say(inbox, "ada", b"2"), inbox.check, lambda: inbox.forget("ada")):
            with pytest.raises(InboxUnavailable, match="locked"):
                act()
        assert bodies(missed(inbox, "ada", head)) == [b"1"]
        db.execute("ROLLBACK")
    say(inbox, "ada", b"3")
    assert bodies(missed(inbox, "ada", head)) == [b"1", b"3"]
    inbox.close()


def test_every_check_writes(path: Path, opened: list[MaintainedFile]) -> None:
    """Or it would call a full disk good: SQLite writes nothing where an UPDATE changes nothing."""
    inbox = MaintainedFile(str(path), RETENTION)
    opened.append(inbox)
    say(inbox, "ada", b"1")
    with contextlib.closing(sqlite3.connect(path)) as other:
        versions = []
        for _ in range(4):
            inbox.check()
            versions += other.execute("PRAGMA data_version").fetchone()
    assert len(set(versions)) == 4, versions
    assert bodies(missed(inbox, "ada", 0)) == [b"1"]


def test_a_lock_that_ends_in_time_is_waited_for(path: Path) -> None:
    inbox = MaintainedFile(str(path), RETENTION)
    head = inbox.open()
    locked = (
        "import sqlite3, sys, time; db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute('BEGIN IMMEDIATE');"
        "print('locked', flush=True); time.sleep(0.2); db.execute('ROLLBACK')"
    )
    with subprocess.Popen([sys.executable, "-c", locked, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        say(inbox, "ada", b"1")
    assert bodies(missed(inbox, "ada", head)) == [b"1"]
    inbox.close()


# A clock that jumps


def test_what_went_by_age_is_not_taken_for_nothing_missed_after_the_clock_or_the_setting_changed(
    path: Path, opened: list[MaintainedFile]
) -> None:
    clock = FakeClock()
    inbox = MaintainedFile(str(path), Retention(ttl_s=100), clock)
    opened.append(inbox)
    start = inbox.open()
    clock.step(1)
    say(inbox, "ada", b"gone")
    clock.step(101)
    maintained(inbox)
    clock.step(-60)
    page = missed(inbox, "ada", start)
    assert (page.total, page.complete) == (0, False)
    inbox.close()
    clock.step(60)
    longer = MaintainedFile(str(path), Retention(ttl_s=10_000), clock)
    opened.append(longer)
    longer.open()
    page = missed(longer, "ada", start)
    assert (page.total, page.complete) == (0, False)


def test_pending_stays_small_though_the_clock_was_once_far_ahead(path: Path, opened: list[MaintainedFile]) -> None:
    clock = FakeClock()
    inbox = MaintainedFile(str(path), Retention(ttl_s=100, max_per_user=5), clock, index_at=10)
    opened.append(inbox)
    inbox.open()
    clock.step(10_000_000)
    say(inbox, "ada", b"from the future")
    clock.step(-10_000_000)
    for _ in range(300):
        clock.step(1)
        say(inbox, "ada", b"x")
        maintained(inbox)
        inbox.maintenance._next_purge = 0.0  # as a second later
    maintained(inbox)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM pending").fetchone()[0] < 50


def test_offsets_grow_though_the_file_was_replaced_while_the_clock_was_behind(
    path: Path, opened: list[MaintainedFile]
) -> None:
    clock = FakeClock()
    inbox = MaintainedFile(str(path), LARGE, clock)
    opened.append(inbox)
    inbox.open()
    (delivered,) = inbox.append([Entry(("ada",), b"1")]).outcomes
    assert isinstance(delivered, int)
    clock.step(-3_600)
    for each in path.parent.glob(path.name + "*"):
        each.unlink()
    (newer,) = inbox.append([Entry(("ada",), b"2")], delivered).outcomes
    assert isinstance(newer, int)
    assert newer > delivered


# What cannot be read, or not be done now


def test_a_row_that_cannot_be_read_is_a_corrupt_file(path: Path, opened: list[MaintainedFile]) -> None:
    inbox = MaintainedFile(str(path), LARGE)
    opened.append(inbox)
    inbox.open()
    say(inbox, "ada", b"x")
    inbox.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE pending SET users = x'c1'")
        db.commit()
    with pytest.raises(InboxUnavailable, match="the file is corrupt"):
        inbox.open()


def test_forgotten_notifications_are_erased_when_other_readers_end(path: Path, opened: list[MaintainedFile]) -> None:
    inbox = MaintainedFile(str(path), LARGE)
    opened.append(inbox)
    inbox.open()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as backup:
        say(inbox, "ada", SECRET)
        backup.execute("BEGIN")
        backup.execute("SELECT * FROM notifications").fetchall()
        inbox.forget("ada")
        assert SECRET in raw(path)
        backup.execute("COMMIT")
    inbox.maintenance._next_purge = 0.0  # as a second later
    maintained(inbox)
    assert SECRET not in raw(path)


def test_a_client_of_a_file_that_was_replaced_is_told_so(path: Path, opened: list[MaintainedFile]) -> None:
    clock = FakeClock()
    inbox = MaintainedFile(str(path), LARGE, clock)
    opened.append(inbox)
    start = inbox.open()
    clock.step(1)
    (delivered,) = say(inbox, "ada", b"gone with the file")
    clock.step(-3_600)
    for each in path.parent.glob(path.name + "*"):
        each.unlink()
    inbox.append([], delivered)
    assert not missed(inbox, "ada", start).complete
