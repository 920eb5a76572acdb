"""SessionManager under concurrent changes."""

import os
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.sessions import Audience, SessionManager, Stats
from tests.servers import ROOT
from tests.unit.fakes import connection
from tests.unit.sessions import hammer


def test_a_connection_belongs_to_its_user_until_it_is_removed() -> None:
    manager = SessionManager(20)
    phone, _ = connection()
    assert manager.user_of(phone) is None
    assert manager.add("1", phone) is None
    assert manager.user_of(phone) == "1"
    assert manager.connections_of(["1"]) == Audience(1, [phone])
    assert manager.remove(phone) == "1"
    assert manager.connections_of(["1"]) == Audience(0, [])


def test_a_user_may_have_several_connections() -> None:
    manager = SessionManager(20)
    phone, tab, other = (connection()[0] for _ in range(3))
    for user, added in (("1", phone), ("1", tab), ("2", other)):
        manager.add(user, added)
    assert manager.connections_of(["2", "1", "offline"]) == Audience(2, [other, phone, tab])
    assert manager.stats() == Stats(2, 3)
    manager.remove(phone)
    assert manager.connections_of(["1"]) == Audience(1, [tab])


def test_a_users_entry_goes_with_the_last_connection() -> None:
    manager = SessionManager(20)
    phone, tab = connection()[0], connection()[0]
    manager.add("1", phone)
    manager.add("1", tab)
    manager.remove(phone)
    assert manager.stats() == Stats(1, 1)
    manager.remove(tab)
    assert manager.stats() == Stats(0, 0)
    assert manager._users == {}


def test_removing_twice_or_a_stranger_changes_nothing() -> None:
    manager = SessionManager(20)
    phone, stranger = connection()[0], connection()[0]
    manager.add("1", phone)
    assert manager.remove(stranger) is None
    assert manager.remove(phone) == "1"
    assert manager.remove(phone) is None
    assert manager.stats() == Stats(0, 0)


def test_adding_twice_changes_nothing() -> None:
    manager = SessionManager(2)
    phone, tab = connection()[0], connection()[0]
    manager.add("1", phone)
    manager.add("1", tab)
    assert manager.add("1", phone) is None
    assert manager.connections_of(["1"]) == Audience(1, [phone, tab])
    assert manager.stats() == Stats(1, 2)


def test_a_connection_cannot_become_another_users() -> None:
    manager = SessionManager(20)
    phone, _ = connection()
    manager.add("1", phone)
    with pytest.raises(ValueError, match="another user"):
        manager.add("2", phone)
    assert manager.user_of(phone) == "1"
    assert manager.connections_of(["2"]) == Audience(0, [])
    assert manager.stats() == Stats(1, 1)


def test_what_was_returned_does_not_change_with_the_registry() -> None:
    manager = SessionManager(20)
    phone, tab = connection()[0], connection()[0]
    manager.add("1", phone)
    found = manager.connections_of(["1"])
    manager.add("1", tab)
    manager.remove(phone)
    assert found == Audience(1, [phone])


# The limit


def test_above_the_limit_the_oldest_gives_way() -> None:
    manager = SessionManager(3)
    made = [connection()[0] for _ in range(6)]
    assert [manager.add("1", added) for added in made] == [None, None, None, *made[:3]]
    assert manager.connections_of(["1"]) == Audience(1, made[3:])
    assert manager.stats() == Stats(1, 3)
    assert manager.remove(made[0]) is None, "its disconnect comes later and finds nothing to do"
    assert manager.stats() == Stats(1, 3)


def test_the_oldest_is_the_oldest_still_connected() -> None:
    manager = SessionManager(2)
    first, second, third, fourth = (connection()[0] for _ in range(4))
    manager.add("1", first)
    manager.add("1", second)
    manager.remove(first)
    assert manager.add("1", third) is None
    assert manager.add("1", fourth) is second


def test_with_a_limit_of_one_the_newest_stays() -> None:
    manager = SessionManager(1)
    first, second = connection()[0], connection()[0]
    manager.add("1", first)
    assert manager.add("1", second) is first
    assert manager.connections_of(["1"]) == Audience(1, [second])


def test_one_users_limit_is_not_anothers() -> None:
    manager = SessionManager(1)
    assert manager.add("1", connection()[0]) is None
    assert manager.add("2", connection()[0]) is None


# Numbers


@pytest.mark.parametrize(
    ("stats", "average"), [(Stats(0, 0), 0), (Stats(10, 15), 1.5), (Stats(3, 4), 4 / 3), (Stats(1, 1), 1.0)]
)
def test_the_average_is_not_rounded_and_zero_without_connections(stats: Stats, average: float) -> None:
    assert stats.to_json() == {
        "connectedUsers": stats.connected_users,
        "totalConnections": stats.total_connections,
        "averageConnectionsPerUser": average,
    }


# Whatever happens


@given(st.lists(st.tuples(st.sampled_from(["add", "add", "remove"]), st.integers(0, 14), st.integers(0, 3)), max_size=60))
def test_it_agrees_with_a_plain_list_whatever_comes_and_goes(steps: list[tuple[str, int, int]]) -> None:
    limit = 3
    manager = SessionManager(limit)
    made = [connection()[0] for _ in range(15)]
    model: list[tuple[str, Any]] = []  # (user, connection), oldest first
    gone: set[int] = set()  # a connection that has left does not come back
    for what, which, user_number in steps:
        it, user = made[which], f"user-{user_number}"
        owner = next((known for known, each in model if each is it), None)
        if what == "remove":
            assert manager.remove(it) == owner
            model = [entry for entry in model if entry[1] is not it]
            gone |= {which} if owner is not None else set()
        elif which in gone:
            continue
        elif owner not in (None, user):
            with pytest.raises(ValueError, match="another user"):
                manager.add(user, it)
        else:
            if owner is None:
                model.append((user, it))
            of_user = [entry for entry in model if entry[0] == user]
            expected = of_user[0] if len(of_user) > limit else None
            assert manager.add(user, it) is (expected[1] if expected else None)
            if expected:
                model.remove(expected)
                gone.add(made.index(expected[1]))
        for number in range(4):
            mine = [each for known, each in model if known == f"user-{number}"]
            assert manager.connections_of([f"user-{number}"]) == Audience(1 if mine else 0, mine)
        assert manager.stats() == Stats(len({known for known, _ in model}), len(model))


class CountedSid(str):
    """A sid that counts how often any of its kind is looked up or compared."""

    __slots__ = ()
    uses = 0

    def __hash__(self) -> int:
        CountedSid.uses += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        CountedSid.uses += 1
        return super().__eq__(other)


def test_the_work_is_the_same_for_ten_connections_and_for_ten_thousand() -> None:
    def uses(among: int) -> int:
        manager = SessionManager(20)
        for number in range(among):
            manager.add(f"user-{number // 5}", connection(CountedSid(f"{among}-{number}"))[0])
        newcomer, _ = connection(CountedSid(f"{among}-new"))
        before = CountedSid.uses
        manager.add("user-0", newcomer)
        manager.user_of(newcomer)
        manager.connections_of(["user-0", "nobody"])
        manager.stats()
        manager.remove(newcomer)
        return CountedSid.uses - before

    # Another sid is compared only if two are in the same slot of a table.
    assert abs(uses(10) - uses(10_000)) <= 6


def test_both_directions_are_tables() -> None:
    manager = SessionManager(20)
    phone, _ = connection("sid")
    manager.add("1", phone)
    assert manager._users == {"1": {"sid": phone}}
    assert phone.user_id == "1"


# At once


def test_twenty_threads_leave_it_whole() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        assert hammer.run(lambda: time.sleep(0)) > 100
    finally:
        sys.setswitchinterval(before)


def test_twenty_greenlets_leave_it_whole() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.sessions.hammer"],
        cwd=ROOT,
        env={**os.environ, "ENV_FILE": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 100
