"""What every store keeps: the protocol of socket_server/inbox/inbox.py."""

import itertools
import random
import threading
import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from socket_server.inbox import memory
from socket_server.inbox.inbox import (
    IDEMPOTENCY_S,
    MICROSECONDS,
    Claim,
    Entry,
    Inbox,
    Page,
    Repeat,
    Retention,
    Stored,
)
from socket_server.inbox.redis import store as redis_store
from socket_server.inbox.sqlite import maintenance
from tests.inbox.conftest import CLOCKED, KINDS, LASTING, RETENTION, SHARED, FakeClock, Store, stores
from tests.inbox.files import MaintainedFile

ALL = 1_000
MUCH = 1 << 30


def put(inbox: Inbox, *entries: Entry) -> list[int]:
    """Append entries that are no repeats; return their offsets."""
    outcomes = inbox.append(entries).outcomes
    assert all(isinstance(each, int) for each in outcomes)
    return [int(each) for each in outcomes if isinstance(each, int)]


def say(inbox: Inbox, user_id: str, *bodies: bytes, ttl_s: float | None = None) -> list[int]:
    """Append notifications for one user, one after the other; return their offsets."""
    return [put(inbox, Entry((user_id,), body, ttl_s))[0] for body in bodies]


def missed(inbox: Inbox, user_id: str, after: int, until: int | None = None) -> Page:
    return inbox.since(user_id, after, until, ALL, MUCH)


def bodies(page: Page) -> list[bytes]:
    return [each.notification for each in page.notifications]


def offsets(page: Page) -> list[int]:
    return [each.offset for each in page.notifications]


# Offsets


@stores(*KINDS)
def test_a_new_store_begins_now_and_is_complete_from_there(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    assert missed(inbox, "ada", head) == Page((), 0, True)
    assert head > 1_700_000_000 * MICROSECONDS


@stores(*CLOCKED)
def test_offsets_are_the_clocks_microseconds(store: Store, clock: FakeClock) -> None:
    inbox = store.open(clock=clock)
    assert inbox.open() == clock.now
    clock.step(1)
    assert say(inbox, "ada", b"1") == [clock.now]
    assert inbox.open() == clock.now


@stores(*KINDS)
def test_offsets_grow_strictly(store: Store) -> None:
    inbox = store.open()
    found = [inbox.open()] + [offset for _ in range(20) for offset in put(inbox, *[Entry(("ada",), b"x")] * 20)]
    assert found == sorted(set(found))


@stores(*CLOCKED)
def test_offsets_grow_while_the_clock_stands_still_or_goes_back(store: Store, clock: FakeClock) -> None:
    inbox = store.open(clock=clock)
    found = [inbox.open()]
    found += say(inbox, "ada", b"1", b"2")
    clock.step(-3_600)
    found += say(inbox, "ada", b"3", b"4")
    clock.step(10 * 3_600)
    found += say(inbox, "ada", b"5")
    assert found == sorted(set(found))
    assert found[-1] == clock.now


@stores("sqlite", "redis")
def test_offsets_grow_after_reopening_though_the_clock_went_back(store: Store, clock: FakeClock) -> None:
    inbox = store.open(clock=clock)
    inbox.open()
    found = say(inbox, "ada", b"1")
    found += say(inbox, "ada", b"2", ttl_s=0)  # nothing but its offset is left of it
    inbox.close()
    clock.step(-3_600)
    again = store.open(clock=clock)
    assert again.open() == found[-1]
    found += say(again, "ada", b"3")
    assert found == sorted(set(found))


@stores(*LASTING)
def test_what_was_appended_is_there_after_reopening(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    said = say(inbox, "ada", b"1", b"2")
    inbox.append([Entry(("ada",), b"3", claim=Claim("key", b"digest", b"answer"))])
    inbox.close()
    again = store.open()
    assert again.open() > said[-1]
    page = missed(again, "ada", head)
    assert bodies(page) == [b"1", b"2", b"3"]
    assert page.complete
    assert isinstance(again.append([Entry(("ada",), b"3", claim=Claim("key", b"digest", b""))]).outcomes[0], Repeat)


@stores(*KINDS)
def test_entries_appended_together_are_all_there_in_order(store: Store) -> None:
    inbox = store.open(Retention(100, 1_000))
    head = inbox.open()
    given_offsets = put(inbox, *[Entry(("ada", "bob"), b"%d" % number) for number in range(500)])
    assert given_offsets == sorted(set(given_offsets))
    for user in ("ada", "bob"):
        page = missed(inbox, user, head)
        assert page.notifications == tuple(Stored(at, b"%d" % number) for number, at in enumerate(given_offsets))
        assert page.complete


@stores(*KINDS)
def test_many_entries_appended_together_are_all_there(store: Store) -> None:
    inbox = store.open(Retention(100, 20_000))
    head = inbox.open()
    put(inbox, *[Entry(("ada",), b"x")] * 10_000)
    assert missed(inbox, "ada", head).total == 10_000


@stores(*KINDS)
def test_nothing_appended_is_no_error(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    assert inbox.append([]).outcomes == ()
    assert inbox.open() == head
    assert inbox.check() is None


@stores(*KINDS)
def test_an_entry_without_users_takes_an_offset(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    (offset,) = put(inbox, Entry((), b"x"))
    assert offset > head
    assert inbox.open() == offset


# since


@stores(*KINDS)
def test_since_gives_exactly_what_lies_after_and_until(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    first, second, third, fourth = say(inbox, "ada", b"1", b"2", b"3", b"4")
    assert bodies(missed(inbox, "ada", head)) == [b"1", b"2", b"3", b"4"]
    assert bodies(missed(inbox, "ada", first)) == [b"2", b"3", b"4"]
    assert bodies(missed(inbox, "ada", first - 1)) == [b"1", b"2", b"3", b"4"]
    assert bodies(missed(inbox, "ada", first, third)) == [b"2", b"3"]
    assert bodies(missed(inbox, "ada", first, third - 1)) == [b"2"]
    assert bodies(missed(inbox, "ada", second, second)) == []
    assert missed(inbox, "ada", fourth) == Page((), 0, True)


@stores(*KINDS)
def test_since_gives_a_user_nothing_of_others(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    put(inbox, Entry(("ada",), b"1"), Entry(("bob", "ada"), b"2"), Entry(("bob",), b"3"))
    assert bodies(missed(inbox, "ada", head)) == [b"1", b"2"]
    assert bodies(missed(inbox, "bob", head)) == [b"2", b"3"]
    assert missed(inbox, "eve", head) == Page((), 0, True)


@stores(*KINDS)
def test_a_page_ends_at_its_limit_and_total_counts_the_range(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    said = say(inbox, "ada", b"1", b"2", b"3", b"4")
    page = inbox.since("ada", head, None, 3, MUCH)
    assert (bodies(page), page.total, page.complete) == ([b"1", b"2", b"3"], 4, True)
    page = inbox.since("ada", offsets(page)[-1], None, 3, MUCH)
    assert (bodies(page), page.total, page.complete) == ([b"4"], 1, True)
    assert inbox.since("ada", said[0], said[2], 1, MUCH).total == 2


@stores(*KINDS)
def test_a_page_ends_at_its_bytes_but_holds_one(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    said = say(inbox, "ada", b"x" * 10, b"y" * 10, b"z" * 100)
    assert len(bodies(inbox.since("ada", head, None, ALL, 20))) == 2
    assert len(bodies(inbox.since("ada", head, None, ALL, 19))) == 1
    page = inbox.since("ada", said[1], None, ALL, 20)
    assert (bodies(page), page.total) == ([b"z" * 100], 1)
    assert bodies(inbox.since("ada", head, None, ALL, 0)) == [b"x" * 10]


@stores(*KINDS)
def test_pages_together_are_the_whole(store: Store) -> None:
    inbox = store.open(Retention(100, 1_000))
    after = head = inbox.open()
    put(inbox, *[Entry(("ada", "bob"), b"%d" % number * 7) for number in range(700)])
    found: list[Stored] = []
    while page := inbox.since("ada", after, None, 90, 2_000).notifications:
        found += page
        after = page[-1].offset
    assert tuple(found) == missed(inbox, "ada", head).notifications
    assert len(found) == 700


# complete


@stores(*KINDS)
def test_before_the_stores_life_is_not_complete(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    say(inbox, "ada", b"1")
    for after in (head - 1, 1, 0):
        page = missed(inbox, "ada", after)
        assert (bodies(page), page.complete) == ([b"1"], False)


@stores(*KINDS)
def test_after_the_head_is_not_complete_and_empty(store: Store) -> None:
    inbox = store.open()
    inbox.open()
    (offset,) = say(inbox, "ada", b"1")
    for after in (offset + 1, offset + 3_600 * MICROSECONDS, 2**53 + 1, 2**63 - 2):
        assert missed(inbox, "ada", after) == Page((), 0, False)


@stores(*CLOCKED)
def test_what_is_older_than_retention_is_gone_and_not_complete(store: Store, clock: FakeClock) -> None:
    inbox = store.open(clock=clock)
    head = inbox.open()
    (first,) = say(inbox, "ada", b"1")
    clock.step(60)
    (second,) = say(inbox, "ada", b"2")
    clock.step(39)
    page = missed(inbox, "ada", head)
    assert (bodies(page), page.complete) == ([b"1", b"2"], True)
    clock.step(2)
    page = missed(inbox, "ada", head)
    assert (bodies(page), page.total, page.complete) == ([b"2"], 1, False)
    assert not missed(inbox, "ada", first).complete
    page = missed(inbox, "ada", second - MICROSECONDS)
    assert (bodies(page), page.complete) == ([b"2"], True)
    clock.step(1_000)
    assert missed(inbox, "ada", second) == Page((), 0, False)
    (third,) = say(inbox, "bob", b"3")
    assert missed(inbox, "ada", third).complete


@stores(*CLOCKED)
def test_what_is_older_than_retention_is_gone_however_much_it_is(store: Store, clock: FakeClock) -> None:
    inbox = store.open(clock=clock)
    head = inbox.open()
    users = tuple(f"user {number}" for number in range(3_000))
    for number in range(5):
        put(inbox, Entry(users, b"%d" % number))
    clock.step(101)
    assert missed(inbox, users[7], head) == Page((), 0, False)
    assert inbox.forget(users[8]) == 0
    (after,) = say(inbox, users[7], b"new")
    assert missed(inbox, users[7], after - MICROSECONDS) == Page((Stored(after, b"new"),), 1, True)


@stores("memory", "redis")
def test_what_was_let_go_by_age_is_not_taken_for_nothing_missed_when_the_clock_goes_back(
    store: Store, clock: FakeClock
) -> None:
    inbox = store.open(clock=clock)
    head = inbox.open()
    say(inbox, "ada", b"1")
    clock.step(101)
    say(inbox, "bob", b"2")
    clock.step(-50)
    page = missed(inbox, "ada", head)
    assert bodies(page) == [b"1"] or not page.complete


@stores(*KINDS)
def test_what_one_users_list_drops_stays_with_the_others(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    put(inbox, Entry(("ada", "bob"), b"of two"), Entry(("ada", "bob", "eve"), b"of three"))
    for _ in range(4):
        say(inbox, "ada", *[b"%d" % number for number in range(6)])
        inbox.append([Entry(("ada",), b"x")] * 12)
    inbox.forget("ada")
    page = missed(inbox, "bob", head)
    assert (bodies(page), page.complete) == ([b"of two", b"of three"], True)
    inbox.forget("eve")
    assert bodies(missed(inbox, "bob", head)) == [b"of two", b"of three"]


@stores(*KINDS)
def test_the_newest_of_a_user_stay_and_what_went_is_not_complete(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    said = say(inbox, "ada", *[b"%d" % number for number in range(8)])
    put(inbox, Entry(("bob",), b"of bob"))
    page = missed(inbox, "ada", head)
    assert (bodies(page), page.total, page.complete) == ([b"3", b"4", b"5", b"6", b"7"], 5, False)
    assert not missed(inbox, "ada", said[1]).complete
    assert missed(inbox, "ada", said[2]).complete
    assert missed(inbox, "ada", said[4]).complete
    assert missed(inbox, "bob", head).complete


@stores(*KINDS)
def test_the_count_holds_within_one_append_and_over_many(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    for start in range(0, 120, 12):
        numbers = range(start, start + 12)
        said = put(inbox, *[Entry(("ada", f"u{number % 3}"), b"%d" % number) for number in numbers])
        page = missed(inbox, "ada", head)
        assert (offsets(page), page.complete) == (said[-5:], False)
        assert missed(inbox, "ada", said[-6]).complete
        assert not missed(inbox, "ada", said[-7]).complete


@stores(*KINDS)
def test_one_per_user_may_be_all(store: Store) -> None:
    inbox = store.open(Retention(100, 1))
    head = inbox.open()
    first, second = say(inbox, "ada", b"1", b"2")
    assert missed(inbox, "ada", first) == Page((Stored(second, b"2"),), 1, True)
    assert missed(inbox, "ada", head) == Page((Stored(second, b"2"),), 1, False)


# An entry's own ttl


@stores(*CLOCKED)
def test_what_went_by_its_own_ttl_is_skipped_and_not_missed(store: Store, clock: FakeClock) -> None:
    inbox = store.open(clock=clock)
    head = inbox.open()
    say(inbox, "ada", b"1")
    say(inbox, "ada", b"brief", ttl_s=10)
    say(inbox, "ada", b"3")
    clock.step(9)
    assert bodies(missed(inbox, "ada", head)) == [b"1", b"brief", b"3"]
    clock.step(2)
    page = missed(inbox, "ada", head)
    assert (bodies(page), page.total, page.complete) == ([b"1", b"3"], 2, True)


@stores(*CLOCKED)
def test_what_went_by_its_own_ttl_still_counts_for_the_users_limit(store: Store, clock: FakeClock) -> None:
    inbox = store.open(clock=clock)
    head = inbox.open()
    (first,) = say(inbox, "ada", b"1")
    say(inbox, "ada", b"brief", ttl_s=10)
    clock.step(20)
    say(inbox, "ada", b"3", b"4", b"5", b"6")
    page = missed(inbox, "ada", head)
    assert (bodies(page), page.complete) == ([b"3", b"4", b"5", b"6"], False)
    assert missed(inbox, "ada", first).complete


@stores(*KINDS)
def test_a_ttl_of_zero_takes_an_offset_and_is_not_kept(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    said = say(inbox, "ada", *[b"kept %d" % number for number in range(5)])
    live = say(inbox, "ada", b"live", b"live", ttl_s=0)
    assert said[-1] < live[0] < live[1] == inbox.open()
    page = missed(inbox, "ada", head)
    assert (page.total, len(bodies(page)), page.complete) == (5, 5, True)
    assert missed(inbox, "ada", live[0]) == Page((), 0, True)


@stores(*CLOCKED)
def test_a_ttl_beyond_retention_is_that_of_retention(store: Store, clock: FakeClock) -> None:
    inbox = store.open(clock=clock)
    head = inbox.open()
    say(inbox, "ada", b"1", ttl_s=100_000)
    clock.step(99)
    assert missed(inbox, "ada", head).total == 1
    clock.step(2)
    assert missed(inbox, "ada", head) == Page((), 0, False)


# What others have stored


@stores(*LASTING)
def test_what_the_caller_has_not_delivered_is_handed_out_before_its_own(store: Store) -> None:
    first, second = store.open(), store.open()
    head = first.open()
    second.open()
    theirs = put(second, Entry(("ada", "bob"), b"1"), Entry(("eve",), b"2"))
    appended = first.append([Entry(("ada",), b"3")], head)
    assert [(each.offset, each.user_ids, each.notification) for each in appended.foreign_records] == [
        (theirs[0], ("ada", "bob"), b"1"),
        (theirs[1], ("eve",), b"2"),
    ]
    [own] = appended.outcomes
    assert isinstance(own, int)
    assert own > theirs[1]
    assert first.append([], own).foreign_records == ()
    assert [each.notification for each in first.append([], theirs[0]).foreign_records] == [b"2", b"3"]


@stores(*LASTING)
def test_who_delivers_nothing_is_handed_out_nothing(store: Store) -> None:
    first, second = store.open(), store.open()
    first.open()
    put(second, Entry(("ada",), b"1"))
    assert first.append([Entry(("ada",), b"2")]).foreign_records == ()
    assert first.append([]).foreign_records == ()


@stores("sqlite")
def test_what_is_not_delivered_yet_is_handed_out_though_the_lists_have_moved(store: Store, clock: FakeClock) -> None:
    inbox = store.open(clock=clock)
    head = inbox.open()
    inbox.append([Entry(tuple(f"user {n}" for n in range(100)), b"unheard")], head)
    clock.step(60)
    while inbox.maintain():
        pass
    again = store.open(clock=clock)
    again.open()
    while again.maintain():
        pass
    assert [each.notification for each in again.append([], head).foreign_records] == [b"unheard"]


@stores("sqlite", "client")  # Redis's log is for all nodes, and short
def test_a_forgotten_user_is_handed_out_no_more(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    put(inbox, Entry(("ada", "bob"), b"shared"), Entry(("ada",), b"own"))
    inbox.forget("ada")
    others = inbox.append([], head).foreign_records
    assert [(each.user_ids, each.notification) for each in others] == [(("bob",), b"shared")]


# Idempotency keys


def claimed(body: bytes, key: str = "key", digest: bytes = b"digest", answer: bytes = b"answer") -> Entry:
    return Entry(("ada",), body, claim=Claim(key, digest, answer))


@stores(*KINDS)
def test_a_repeat_returns_what_the_first_did_and_stores_nothing(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    (first,) = put(inbox, claimed(b"1", digest=b"\0\xff", answer=b"\xfe\0"))
    again = inbox.append([claimed(b"2", digest=b"other", answer=b"other")])
    assert again.outcomes == (Repeat(first, b"\0\xff", b"\xfe\0"),)
    assert again.foreign_records == ()
    assert inbox.open() == first
    assert bodies(missed(inbox, "ada", head)) == [b"1"]


@stores(*KINDS)
def test_a_repeat_among_others_leaves_them_alone(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    (first,) = put(inbox, claimed(b"1"))
    outcomes = inbox.append([Entry(("ada",), b"2"), claimed(b"1"), claimed(b"3", key="third")]).outcomes
    assert outcomes[1] == Repeat(first, b"digest", b"answer")
    page = missed(inbox, "ada", head)
    assert bodies(page) == [b"1", b"2", b"3"]
    assert offsets(page) == [first, outcomes[0], outcomes[2]]


@stores(*KINDS)
def test_a_key_twice_in_one_append_is_stored_once(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    first, second = inbox.append([claimed(b"1"), claimed(b"2", digest=b"second")]).outcomes
    assert second == Repeat(first, b"digest", b"answer")
    assert bodies(missed(inbox, "ada", head)) == [b"1"]


@stores(*KINDS)
def test_a_key_holds_for_what_was_not_kept_too(store: Store) -> None:
    inbox = store.open()
    (first,) = put(inbox, Entry((), b"1", claim=Claim("nobody", b"d", b"a")))
    (second,) = put(inbox, Entry(("ada",), b"2", 0, Claim("live", b"d", b"a")))
    outcomes = inbox.append([claimed(b"1", key="nobody"), claimed(b"2", key="live")]).outcomes
    assert outcomes == (Repeat(first, b"d", b"a"), Repeat(second, b"d", b"a"))


@stores(*KINDS)
def test_another_answer_can_be_set_for_a_key(store: Store) -> None:
    inbox = store.open()
    (first,) = put(inbox, claimed(b"1"))
    inbox.amend("key", b"amended")
    inbox.amend("another key", b"nothing to amend")
    assert inbox.append([claimed(b"2")]).outcomes == (Repeat(first, b"digest", b"amended"),)
    put(inbox, claimed(b"3", key="another key"))


@stores(*LASTING)
def test_a_claim_of_the_version_before_is_found_under_its_former_key(store: Store) -> None:
    inbox = store.open()
    (first,) = put(inbox, claimed(b"1"))
    again = Entry(("ada",), b"again", claim=Claim("owner/key", b"digest", b"", "key"))
    assert inbox.append([again]).outcomes == (Repeat(first, b"digest", b"answer"),)
    new = Entry(("ada",), b"new", claim=Claim("owner/other", b"digest", b"answer", "other"))
    (other,) = put(inbox, new)
    assert inbox.append([new]).outcomes == (Repeat(other, b"digest", b"answer"),)


@stores(*CLOCKED)
def test_above_the_limit_the_oldest_keys_are_forgotten_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (memory, maintenance, redis_store):
        monkeypatch.setattr(module, "MAX_IDEMPOTENCY_KEYS", 3)
    inbox = store.open()
    for number in range(5):
        put(inbox, claimed(b"x", f"key-{number}"))
    if isinstance(inbox, MaintainedFile):
        while inbox.maintain():
            pass
    outcomes = inbox.append([claimed(b"x", f"key-{number}") for number in (2, 3, 4)]).outcomes
    assert [isinstance(each, Repeat) for each in outcomes] == [True] * 3
    put(inbox, claimed(b"x", "key-0"))


@stores(*CLOCKED)
def test_a_key_is_free_again_after_a_day(store: Store, clock: FakeClock) -> None:
    inbox = store.open(clock=clock)
    (first,) = put(inbox, claimed(b"1"))
    clock.step(IDEMPOTENCY_S - 1)
    assert inbox.append([claimed(b"2")]).outcomes == (Repeat(first, b"digest", b"answer"),)
    clock.step(2)
    (second,) = put(inbox, claimed(b"3", digest=b"new"))
    assert inbox.append([claimed(b"4")]).outcomes == (Repeat(second, b"new", b"answer"),)


@stores(*KINDS)
@pytest.mark.parametrize("key", ["", " ", "a/b", '"', "ä\0ö", "🔑", "k" * 1_000])
def test_a_key_may_be_any_text(store: Store, key: str) -> None:
    inbox = store.open()
    (first,) = put(inbox, claimed(b"1", key=key))
    assert inbox.append([claimed(b"1", key=key)]).outcomes == (Repeat(first, b"digest", b"answer"),)
    put(inbox, claimed(b"2", key=key + "x"))


# forget


@stores(*KINDS)
def test_forget_drops_what_is_kept_for_that_user_only(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    put(inbox, Entry(("ada", "bob"), b"1"), Entry(("ada",), b"2"), Entry(("bob",), b"3"))
    last = inbox.open()
    assert inbox.forget("ada") == 2
    assert missed(inbox, "ada", head) == Page((), 0, False)
    assert not missed(inbox, "ada", last - 1).complete
    assert missed(inbox, "ada", last) == Page((), 0, True)
    page = missed(inbox, "bob", head)
    assert (bodies(page), page.complete) == ([b"1", b"3"], True)
    assert inbox.open() == last


@stores(*KINDS)
def test_a_forgotten_user_receives_again(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    said = say(inbox, "ada", *[b"%d" % number for number in range(7)])
    inbox.forget("ada")
    again = say(inbox, "ada", b"a", b"b")
    assert missed(inbox, "ada", said[-1]) == Page((Stored(again[0], b"a"), Stored(again[1], b"b")), 2, True)
    assert not missed(inbox, "ada", head).complete
    more = say(inbox, "ada", b"c", b"d", b"e", b"f", b"g")
    page = missed(inbox, "ada", again[1])
    assert (offsets(page), page.complete) == (more, True)
    assert not missed(inbox, "ada", again[0]).complete


@stores(*KINDS)
def test_forgetting_a_user_without_notifications_is_no_error(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    say(inbox, "bob", b"1")
    assert inbox.forget("ada") == 0
    assert not missed(inbox, "ada", head).complete
    assert inbox.forget("ada") == 0
    assert missed(inbox, "bob", head).total == 1


# Content


@stores("memory")
def test_memory_is_given_back_by_count_by_age_and_by_own_ttl(store: Store, clock: FakeClock) -> None:
    def append(user: str, ttl_s: float | None = None) -> None:
        for _ in range(100):
            say(inbox, user, b"%" * random.randrange(100_000, 100_100), ttl_s=ttl_s)

    def held() -> int:
        return tracemalloc.get_traced_memory()[0] - before

    inbox = store.open(Retention(100, 20), clock=clock)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        append("ada")
        append("bob", ttl_s=10)
        assert 4_000_000 <= held() < 4_500_000
        clock.step(20)
        inbox.since("eve", 0, None, 1, 1)
        assert held() < 2_500_000
        clock.step(100)
        inbox.since("eve", 0, None, 1, 1)
        assert held() < 50_000
    finally:
        tracemalloc.stop()


@stores(*KINDS)
def test_one_body_is_shared_by_ten_thousand_users(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    users = tuple(f"user {number}" for number in range(10_000))
    body = b"%" * 1_000_000  # a copy for each would be 10 GB
    (offset,) = put(inbox, Entry(users, body))
    for user in (users[0], users[5_000], users[-1]):
        assert missed(inbox, user, head) == Page((Stored(offset, body),), 1, True)
    inbox.forget(users[0])
    assert bodies(missed(inbox, users[-1], head)) == [body]


@stores(*KINDS)
@pytest.mark.parametrize(
    "body",
    [b"", b"\0", "שלום עולם ✓".encode(), bytes(range(256)) * 4_096, b"'\"\r\n\\{}%s"],
    ids=["nothing", "a NUL", "Hebrew", "a megabyte", "signs"],
)
def test_bytes_come_back_as_they_were(store: Store, body: bytes) -> None:
    inbox = store.open()
    head = inbox.open()
    (offset,) = say(inbox, "ada", body)
    assert missed(inbox, "ada", head) == Page((Stored(offset, body),), 1, True)


USERS = (
    *(
        "",
        " ",
        "a b",
        "a/b",
        "../..",
        "'",
        '"',
        "`",
        "\\",
        "%s",
        "*",
        "?",
        "[a]",
        "{a}",
        "$1",
        "a:b",
        "1:2",
        "d1",
        "123",
        "0123",
    ),
    *(
        "\0",
        "\0\0",
        "a\0b",
        "a\0",
        "\n",
        "a",
        "A",
        "ä",
        "a\u0308",
        "שלום",
        "🙂",
        "x" * 1_000,
        "x" * 999 + "y",
        "null",
        "-1",
    ),
)


@stores(*KINDS)
def test_user_ids_of_any_kind_are_told_apart(store: Store) -> None:
    inbox = store.open()
    head = inbox.open()
    for number, user in enumerate(USERS):
        put(inbox, Entry((user,), b"to %d" % number))
    (shared,) = put(inbox, Entry(USERS, b"to all"))
    for number, user in enumerate(USERS):
        page = missed(inbox, user, head)
        assert bodies(page) == [b"to %d" % number, b"to all"], user
        assert offsets(page)[-1] == shared
    for user in USERS[::2]:
        assert inbox.forget(user) == 2
    assert all(missed(inbox, user, head).total == 2 for user in USERS[1::2])


# At once


@stores(*SHARED)
def test_appenders_at_once_get_distinct_offsets_and_lists_stay_in_order(store: Store) -> None:
    inbox = store.open(Retention(100, 10_000))
    head = inbox.open()
    given_offsets: list[list[int]] = [[] for _ in range(8)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(60):
                user = f"user {step % 4}"
                found = put(inbox, Entry((user, "all"), b"%d" % number), Entry(("all",), b"%d" % number))
                given_offsets[number] += found
                assert found[1] in offsets(missed(inbox, "all", found[0]))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    everything = list(itertools.chain.from_iterable(given_offsets))
    assert len(set(everything)) == len(everything) == 8 * 120
    assert all(each == sorted(each) for each in given_offsets)
    page = missed(inbox, "all", head)
    assert page.total == 960
    assert offsets(inbox.since("all", head, None, 10_000, MUCH)) == sorted(everything)
    for user in range(4):
        found = offsets(missed(inbox, f"user {user}", head))
        assert found == sorted(found)
        assert len(found) == 120


# Against a model


@dataclass
class Model:
    """The contract, in as few words as possible."""

    began: int
    retention: Retention = RETENTION
    head: int = 0
    lists: dict[str, list[tuple[int, bytes, int | None]]] = field(default_factory=dict)  # offset, body, own end
    dropped: dict[str, int] = field(default_factory=dict)
    claims: dict[str, Repeat] = field(default_factory=dict)

    def append(self, now: int, entries: list[Entry]) -> list[int | Repeat]:
        return [self._append(now, entry) for entry in entries]

    def _append(self, now: int, entry: Entry) -> int | Repeat:
        claim = entry.claim
        if claim is not None:
            first = self.claims.get(claim.key)
            if first is not None and first.offset > now - IDEMPOTENCY_S * MICROSECONDS:
                return first
        self.head = max(now, self.head + 1)
        if claim is not None:
            self.claims[claim.key] = Repeat(self.head, claim.digest, claim.answer)
        if entry.ttl_s != 0:
            own = entry.ttl_s is not None and entry.ttl_s < self.retention.ttl_s
            ends = now + round(entry.ttl_s * MICROSECONDS) if own and entry.ttl_s is not None else None
            for user in entry.user_ids:
                kept = self.lists.setdefault(user, [])
                kept.append((self.head, entry.notification, ends))
                if len(kept) > self.retention.max_per_user:
                    self.dropped[user] = kept.pop(0)[0]
        return self.head

    def since(self, now: int, user: str, after: int, until: int | None, limit: int, max_bytes: int) -> Page:
        horizon = now - round(self.retention.ttl_s * MICROSECONDS)
        found = [
            Stored(offset, body)
            for offset, body, ends in self.lists.get(user, [])
            if offset > after and (until is None or offset <= until) and offset >= horizon and (ends is None or ends > now)
        ]
        page = found[:limit]
        while len(page) > 1 and sum(len(each.notification) for each in page) > max_bytes:
            page.pop()
        whole_after = max(self.began, horizon, self.dropped.get(user, 0))
        return Page(tuple(page), len(found), whole_after <= after <= self.head)

    def forget(self, now: int, user: str) -> int:
        count = self.since(now, user, 0, None, ALL, MUCH).total
        self.lists.pop(user, None)
        self.dropped[user] = self.head
        return count


names = st.sampled_from(["ada", "bob", ""])
claims = st.builds(Claim, st.sampled_from(["k", "l"]), st.binary(max_size=3), st.binary(max_size=3))
entries = st.builds(
    Entry,
    st.lists(names, unique=True).map(tuple),
    st.binary(max_size=20),
    st.sampled_from([None, None, None, 0, 1.0, 60.0, 1_000.0]),
    st.one_of(st.none(), st.none(), claims),
)
steps = st.one_of(
    st.tuples(st.just("append"), st.lists(entries, min_size=1, max_size=8)),
    st.tuples(st.just("since"), names, st.integers(-3, 40), st.integers(-1, 40), st.integers(1, 9), st.integers(0, 60)),
    st.tuples(st.just("forget"), names),
    st.tuples(st.just("amend"), st.sampled_from(["k", "l", "m"]), st.binary(max_size=3)),
    st.tuples(st.just("clock"), st.sampled_from([1e-6, 1.0, 30.0, 50.0, 100.0, 90_000.0, -1e-6, -2.0])),
    st.tuples(st.just("reopen")),
)


@stores(*CLOCKED)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(steps, max_size=25))
def test_a_store_does_what_the_model_does(store: Store, script: list[tuple[Any, ...]]) -> None:
    store.clear()
    clock = FakeClock()
    inbox = store.open(clock=clock)
    model = Model(began=clock.now)
    model.head = inbox.open()
    assert model.head == clock.now
    places = [clock.now]  # that a client may ask from
    latest = clock.now
    for kind, *arguments in script:
        latest = max(latest, clock.now)
        match kind, arguments:
            case "append", [batch]:
                outcomes = list(inbox.append(batch).outcomes)
                assert outcomes == model.append(clock.now, batch)
                places += [each for each in outcomes if isinstance(each, int)]
            case "since", [user, start, end, limit, max_bytes]:
                after = places[start] if 0 <= start < len(places) else places[0] + start
                until = None if end < 0 else places[end % len(places)]
                found = inbox.since(user, after, until, limit, max_bytes)
                asked = (user, after, until, limit, max_bytes)
                same_as_model(found, model.since(clock.now, *asked), model.since(latest, *asked))
            case "forget", [user]:
                strict = model.since(latest, user, 0, None, ALL, MUCH).total
                assert strict <= inbox.forget(user) <= model.forget(clock.now, user)
            case "amend", [key, answer]:
                inbox.amend(key, answer)
                if key in model.claims:
                    model.claims[key] = Repeat(model.claims[key].offset, model.claims[key].digest, answer)
            case "clock", [seconds]:
                clock.step(seconds)
            case "reopen", [] if store.kind in LASTING:
                inbox.close()
                inbox = store.open(clock=clock)
                assert inbox.open() == model.head
        tidy(inbox)
    inbox.close()


def same_as_model(found: Page, now: Page, latest: Page) -> None:
    """Fail unless a page is the model's.

    If the clock went back, what had expired by its latest time may be there or not; to say that nothing was dropped is
    then right only if nothing is missing.
    """
    if now == latest:
        assert found == now
        return
    assert latest.total <= found.total <= now.total
    assert not found.complete or now.complete


def tidy(inbox: Any) -> None:
    """Let a store that tidies up apart from its calls do so: nothing of it may be seen."""
    for _ in range(100):
        if not hasattr(inbox, "maintain") or not inbox.maintain():
            return
