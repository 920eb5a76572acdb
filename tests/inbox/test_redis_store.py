"""What is Redis's alone: how it fails, what it holds, and the log that nodes read."""

import os
import threading
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
import redis
import redis.sentinel

from socket_server.errors import ConfigError
from socket_server.inbox.inbox import MICROSECONDS, Claim, Entry, InboxUnavailable, Record, Repeat, Retention
from socket_server.inbox.redis import store
from socket_server.inbox.redis.encoding import decode_log
from socket_server.inbox.redis.store import RedisInbox
from socket_server.redis_access import client
from socket_server.redis_access.keys import DEFAULT_KEYS
from tests.inbox.conftest import RETENTION, FakeClock
from tests.redis_servers import RunningRedis
from tests.servers import free_port, wait_for

PASSWORD = "hunter2-and-more"

Run = Callable[..., RunningRedis]


def say(inbox: RedisInbox, *bodies: bytes, user: str = "ada") -> list[int]:
    return [
        offset for body in bodies for offset in inbox.append([Entry((user,), body)]).outcomes if isinstance(offset, int)
    ]


def missed(inbox: RedisInbox, after: int, user: str = "ada") -> tuple[list[bytes], bool]:
    page = inbox.since(user, after, None, 1_000, 1 << 30)
    return [each.notification for each in page.notifications], page.complete


def refused(call: Callable[[], object]) -> str:
    """Return why a call was refused."""
    started = time.monotonic()
    with pytest.raises(InboxUnavailable) as caught:
        call()
    assert time.monotonic() - started < client.TIMEOUT_S + client.CONNECT_TIMEOUT_S + 1
    text = str(caught.value)
    assert PASSWORD not in text
    assert caught.value.__cause__ is None
    return text


def calls(inbox: RedisInbox) -> list[Callable[[], object]]:
    return [
        inbox.open,
        inbox.check,
        lambda: inbox.append([Entry(("ada",), b"refused")]),
        lambda: inbox.since("ada", 1, None, 10, 100),
        lambda: inbox.forget("ada"),
        lambda: inbox.amend("key", b"answer"),
    ]


@pytest.fixture
def inbox(redis_server: RunningRedis) -> Any:
    made = RedisInbox(redis_server.url, RETENTION)
    yield made
    made.close()


# The log


def test_the_log_has_an_entry_for_each_notification_in_order(redis_server: RunningRedis, inbox: RedisInbox) -> None:
    users = ("ada", "שלום", "a\0b")
    outcomes = inbox.append(
        [
            Entry(users, b"\0 \xff"),
            Entry(("bob",), b"live", ttl_s=0),
            Entry(("ada",), b"claimed", claim=Claim("key", b"d", b"a")),
            Entry(("ada",), b"repeat", claim=Claim("key", b"d", b"a")),
            Entry((), b"to nobody"),
        ]
    ).outcomes
    outcomes += inbox.append([Entry(("ada",), b"last")]).outcomes
    first, live, claimed, repeat, nobody, last = outcomes
    assert isinstance(repeat, Repeat)
    entries: Any = redis_server.client.xrange(DEFAULT_KEYS.log)
    found = decode_log(((entry_id, list(chain.from_iterable(fields.items()))) for entry_id, fields in entries), 0)
    assert found == [
        Record(first, users, b"\0 \xff", found[0].before),
        Record(live, ("bob",), b"live", first),
        Record(claimed, ("ada",), b"claimed", live),
        Record(nobody, (), b"to nobody", claimed),
        Record(last, ("ada",), b"last", nobody),
    ]
    assert found[0].before < first
    assert [entry_id for entry_id, _ in entries] == [b"%d-0" % nobody, b"%d-0" % last]


def test_the_log_lets_go_of_what_is_old(redis_server: RunningRedis) -> None:
    clock = FakeClock()
    inbox = RedisInbox(redis_server.url, Retention(), clock)
    for _ in range(300):
        say(inbox, b"x")
    assert redis_server.client.xlen(DEFAULT_KEYS.log) == 300
    clock.step(store.LOG_S + 1)
    say(inbox, b"x")
    assert redis_server.client.xlen(DEFAULT_KEYS.log) <= 110  # whole blocks go
    inbox.close()


def test_the_log_does_not_grow_without_end(redis_server: RunningRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOG_BYTES", 100_000)
    inbox = RedisInbox(redis_server.url, Retention())
    for size in (10_000, 100, 1_000):
        for _ in range(500_000 // size):
            say(inbox, b"x" * size)
        kept = sum(len(fields[b"entries"]) for _, fields in redis_server.client.xrange(DEFAULT_KEYS.log))
        assert 80_000 <= kept <= 120_000
    inbox.close()


# What it holds


def test_one_body_for_ten_thousand_users(redis_server: RunningRedis, inbox: RedisInbox) -> None:
    before = redis_server.client.info("memory")["used_memory"]
    inbox.append([Entry(tuple(f"user {number}" for number in range(10_000)), b"%" * 100_000)])
    assert len(redis_server.client.keys(DEFAULT_KEYS.prefix + "body:*")) == 1
    grown = redis_server.client.info("memory")["used_memory"] - before
    assert grown < 5_000_000  # the users' lists; a body each would be a gigabyte


def test_a_body_goes_with_its_last_list(redis_server: RunningRedis, inbox: RedisInbox) -> None:
    def held() -> int:
        return len(redis_server.client.keys(DEFAULT_KEYS.prefix + "body:*"))

    inbox.append([Entry(("ada", "bob"), b"shared")])
    assert held() == 1
    inbox.forget("ada")
    assert held() == 1
    inbox.append([Entry(("bob", "eve"), b"x")] * 5)
    assert held() == 5
    inbox.append([Entry(("bob", "eve"), b"x")] * 12)
    assert held() == 5
    inbox.forget("bob")
    assert held() == 5
    inbox.forget("eve")
    assert held() == 0


@pytest.mark.parametrize("size", [0, 1, 1_023, 1_024, 1_025])
@pytest.mark.parametrize("ttl_s", [None, 20.0])
def test_a_small_body_for_one_user_lies_in_the_users_list(
    redis_server: RunningRedis, size: int, ttl_s: float | None
) -> None:
    clock = FakeClock()
    inbox = RedisInbox(redis_server.url, RETENTION, clock)
    head = inbox.open()
    bodies = [(b" :12 \xff\0" * 200)[:size]] * 3
    inbox.append([Entry(("ada",), body, ttl_s) for body in bodies])
    assert len(redis_server.client.keys(DEFAULT_KEYS.prefix + "body:*")) == (0 if size <= 1_024 else 3)
    assert missed(inbox, head) == (bodies, True)
    if ttl_s is not None:
        clock.step(ttl_s + 1)
        assert missed(inbox, head) == ([], True)
    assert inbox.forget("ada") == (3 if ttl_s is None else 0)
    assert missed(inbox, head) == ([], False)
    inbox.close()


def test_everything_of_a_user_expires(redis_server: RunningRedis) -> None:
    inbox = RedisInbox(redis_server.url, Retention(100, 3))
    inbox.append([Entry(("ada", "bob"), b"x", claim=Claim("key", b"d", b"a")), Entry(("ada",), b"brief", ttl_s=10)])
    say(inbox, b"1", b"2", b"3")
    inbox.forget("bob")
    inbox.forget("eve")
    lasting = {(DEFAULT_KEYS.prefix + name).encode() for name in ("head", "began", "log", "logged")}
    for key in redis_server.client.keys("*"):
        left = redis_server.client.pttl(key) / 1_000
        if key in lasting:
            assert left < 0
        elif b":key" in key:
            assert 86_399 < left < 86_402
        else:
            assert 99 < left < 108 or (b":body:" in key and 9 < left < 12), key
    inbox.close()


def test_a_list_lives_as_long_as_its_newest_notification(redis_server: RunningRedis) -> None:
    inbox = RedisInbox(redis_server.url, Retention(1_000, 3))
    key = DEFAULT_KEYS.prefix + "user:ada"
    say(inbox, b"1")
    for left in (1, 999):
        redis_server.client.expire(key, left)
        say(inbox, b"2")
        assert 1_000 < redis_server.client.pttl(key) / 1_000 < 1_066
    redis_server.client.expire(key, 1_030)
    say(inbox, b"3")
    assert 1_020 < redis_server.client.pttl(key) / 1_000 <= 1_030  # long enough
    inbox.close()


def test_what_expired_is_gone_from_redis_itself(redis_server: RunningRedis) -> None:
    inbox = RedisInbox(redis_server.url, Retention(0.1, 3))
    say(inbox, b"x", user="ada")
    wait_for(lambda: len(redis_server.client.keys("*")) == 4, what="the end of the user's keys")
    inbox.close()


def test_a_body_that_redis_threw_away_is_not_taken_for_nothing_missed(
    redis_server: RunningRedis, inbox: RedisInbox
) -> None:
    head = inbox.open()
    first, second, _ = say(inbox, b"1", b"2" * 2_000, b"3")
    redis_server.client.delete(f"{DEFAULT_KEYS.prefix}body:{second}")
    assert missed(inbox, head) == ([b"1", b"3"], False)
    assert missed(inbox, first) == ([b"3"], False)
    assert missed(inbox, second) == ([b"3"], True)


@pytest.mark.parametrize(("size", "bodies"), [(1_000, 0), (2_000, 10)])
def test_since_reads_only_what_that_user_missed(redis_server: RunningRedis, size: int, bodies: int) -> None:
    inbox = RedisInbox(redis_server.url, Retention(100, 10_000))
    said = [each for each in inbox.append([Entry(("ada",), b"x" * size)] * 10_000).outcomes if isinstance(each, int)]

    def cost(after: int) -> int:
        redis_server.client.config_resetstat()
        inbox.since("ada", after, None, 10, 1 << 30)
        stats: dict[str, Any] = redis_server.client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("lrange", "strlen", "getrange"))

    assert cost(said[-11]) == 1 + bodies + bodies
    assert cost(said[-201]) == 2 + bodies + bodies
    inbox.close()


# How it fails


def test_a_redis_that_is_gone_is_unavailable_until_it_is_back(run_redis: Run) -> None:
    server = run_redis(password=PASSWORD)
    inbox = RedisInbox(server.url, RETENTION)
    head = inbox.open()
    say(inbox, b"1")
    server.kill()
    for call in calls(inbox):
        assert f"redis://127.0.0.1:{server.port} cannot be reached: start it" in refused(call)
    server.start()
    inbox.check()
    (again,) = say(inbox, b"2")
    assert again > head
    assert missed(inbox, head) == ([b"2"], False)  # this one keeps nothing on its disk
    inbox.close()


def test_a_redis_that_was_restarted_meanwhile_is_no_error(run_redis: Run) -> None:
    server = run_redis()
    inbox = RedisInbox(server.url, RETENTION)
    inbox.open()
    server.kill()
    server.start()
    say(inbox, b"x")
    inbox.close()


def test_a_redis_that_does_not_answer_is_unavailable_in_time(run_redis: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.3)
    server = run_redis(password=PASSWORD)
    inbox = RedisInbox(server.url, RETENTION)
    inbox.open()
    server.client.client_pause(1_500)
    started = time.monotonic()
    assert "did not answer for 0.3 s" in refused(lambda: say(inbox, b"x"))
    assert time.monotonic() - started < 1
    time.sleep(1.5)
    say(inbox, b"y")
    inbox.close()


def test_an_append_whose_answer_was_lost_is_not_tried_twice(run_redis: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.3)
    server = run_redis()
    inbox = RedisInbox(server.url, RETENTION)
    head = inbox.open()
    server.client.client_pause(1_000)
    with pytest.raises(InboxUnavailable):
        say(inbox, b"x")
    time.sleep(1)
    assert len(missed(inbox, head)[0]) <= 1
    inbox.close()


def test_a_full_redis_stores_nothing_by_halves(redis_server: RunningRedis, inbox: RedisInbox) -> None:
    head = inbox.open()
    say(inbox, b"1")
    before = sorted(redis_server.client.keys("*"))
    redis_server.client.config_set("maxmemory", 1)
    try:
        text = refused(inbox.check)
        assert "is full: raise its maxmemory, or lower INBOX_TTL or INBOX_MAX_PER_USER" in text
        assert refused(lambda: inbox.append([Entry(("ada", "bob"), b"2", claim=Claim("key", b"d", b"a"))] * 3)) == text
        assert missed(inbox, head) == ([b"1"], True)  # what is there can still be read
        assert sorted(redis_server.client.keys("*")) == before
        assert redis_server.client.xlen(DEFAULT_KEYS.log) == 1
    finally:
        redis_server.client.config_set("maxmemory", 0)
    inbox.append([Entry(("ada",), b"2", claim=Claim("key", b"d", b"a"))])
    assert missed(inbox, head) == ([b"1", b"2"], True)


def test_a_read_only_replica_stores_nothing(run_redis: Run) -> None:
    primary = run_redis()
    replica = run_redis("--replicaof", "127.0.0.1", str(primary.port), "--repl-diskless-sync-delay", "0")
    wait_for(lambda: replica.client.info("replication").get("master_link_status") == "up", what="the replica")
    inbox = RedisInbox(replica.url, RETENTION)
    for call in (inbox.open, inbox.check, lambda: say(inbox, b"x"), lambda: inbox.forget("ada")):
        assert "is a read-only replica: name the primary" in refused(call)
    assert replica.client.keys("*") == []
    replica.client.replicaof("NO", "ONE")
    say(inbox, b"x")
    inbox.close()


def test_a_redis_without_its_replicas_stores_nothing(redis_server: RunningRedis, inbox: RedisInbox) -> None:
    redis_server.client.config_set("min-replicas-to-write", 1)
    try:
        for call in (inbox.open, lambda: say(inbox, b"x")):
            assert "min-replicas-to-write" in refused(call)
        assert redis_server.client.keys("*") == []
    finally:
        redis_server.client.config_set("min-replicas-to-write", 0)


def test_a_redis_that_cannot_save_stores_nothing(run_redis: Run) -> None:
    server = run_redis("--dbfilename", "dump.rdb")
    inbox = RedisInbox(server.url, RETENTION)
    inbox.open()
    directory = server.client.config_get("dir")["dir"]
    os.mkdir(f"{directory}/dump.rdb")  # where the snapshot would have to go
    server.client.config_set("save", "1 1")
    wait_for(lambda: _fails_to_save(server), what="a failed snapshot")
    assert "cannot save to its disk (MISCONF)" in refused(lambda: say(inbox, b"x"))
    inbox.close()


def _fails_to_save(server: RunningRedis) -> bool:
    try:
        server.client.bgsave()
    except redis.ResponseError:
        pass
    return bool(server.client.info("persistence")["rdb_last_bgsave_status"] != "ok")


def test_a_wrong_password_and_none_are_named_and_not_shown(run_redis: Run) -> None:
    server = run_redis(password=PASSWORD)
    for credentials in ("", ":no-" + PASSWORD + "@", "eve:" + PASSWORD + "@"):
        inbox = RedisInbox(f"redis://{credentials}127.0.0.1:{server.port}/0", RETENTION)
        for call in calls(inbox):
            assert "asks for another user or password" in refused(call)
        inbox.close()


def test_another_programs_keys_are_named(redis_server: RunningRedis, inbox: RedisInbox) -> None:
    redis_server.client.lpush(DEFAULT_KEYS.prefix + "head", "x")
    assert "data of another program" in refused(inbox.open)


def test_a_policy_that_throws_things_away_is_warned_of(
    redis_server: RunningRedis, inbox: RedisInbox, caplog: pytest.LogCaptureFixture
) -> None:
    inbox.open()
    assert not caplog.records
    redis_server.client.config_set("maxmemory", 1 << 30)
    redis_server.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        inbox.open()
    finally:
        redis_server.client.config_set("maxmemory-policy", "noeviction")
        redis_server.client.config_set("maxmemory", 0)
    assert "noeviction" in caplog.text


# Where it is


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}/x@127.0.0.1:6379",
        f"redis://:{PASSWORD}#x@127.0.0.1:6379/0",
        f"redis://127.0.0.1:{PASSWORD}/0",
        f"redis+sentinel://:{PASSWORD}@127.0.0.1:26379",
        f"redis+sentinel://:{PASSWORD}@127.0.0.1:26379/service/db",
        f"redis+sentinel://:{PASSWORD}@127.0.0.1:port/service",
        f"redis+sentinel://:{PASSWORD}@/service",
        f"http://:{PASSWORD}@127.0.0.1",
        f"redis://:{PASSWORD}@127.0.0.1/0?socket_timeout=soon",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisInbox(url, RETENTION)
    assert PASSWORD not in str(caught.value)
    assert "percent-encoded" in str(caught.value)


def test_a_unix_socket_will_do(run_redis: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("socket") / "redis.sock"
    run_redis("--unixsocket", str(path), password=PASSWORD)
    inbox = RedisInbox(f"unix://:{PASSWORD}@{path}?db=3", RETENTION)
    head = inbox.open()
    say(inbox, b"x")
    assert missed(inbox, head) == ([b"x"], True)
    inbox.close()
    gone = RedisInbox(f"unix://:{PASSWORD}@{path}.gone", RETENTION)
    assert f"unix://{path}.gone cannot be reached" in refused(gone.open)


def test_sentinels_are_asked_for_the_primary_before_and_after_a_failover(run_redis: Run, tmp_path: Any) -> None:
    first = run_redis("--masterauth", PASSWORD, password=PASSWORD)
    second = run_redis("--masterauth", PASSWORD, "--replicaof", "127.0.0.1", str(first.port), password=PASSWORD)
    settings = tmp_path / "sentinel.conf"
    settings.write_text(
        f"sentinel monitor events 127.0.0.1 {first.port} 1\nsentinel auth-pass events {PASSWORD}\n"
        "sentinel down-after-milliseconds events 500\nsentinel failover-timeout events 3000\n"
    )
    sentinel = run_redis(str(settings), "--sentinel")
    wait_for(lambda: second.client.info("replication").get("master_link_status") == "up", 30, "the replica")
    knows = redis.sentinel.Sentinel([("127.0.0.1", sentinel.port)])
    wait_for(lambda: knows.discover_slaves("events"), 30, "the Sentinel's knowledge")
    knows.sentinels[0].close()
    url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/events/0"
    inbox = RedisInbox(url, RETENTION)
    head = inbox.open()
    (offset,) = say(inbox, b"1")
    wait_for(lambda: second.client.get(DEFAULT_KEYS.prefix + "head") == b"%d" % offset, what="the replica's copy")
    first.kill()
    text = refused(lambda: say(inbox, b"lost"))
    assert "redis+sentinel://127.0.0.1" in text

    def works() -> bool:
        try:
            inbox.check()
        except InboxUnavailable:
            return False
        return True

    wait_for(works, 40, "the new primary")
    (again,) = say(inbox, b"2")
    assert again > offset
    assert missed(inbox, head) == ([b"1", b"2"], True)
    inbox.close()
    sentinel.kill()
    lost = RedisInbox(url, RETENTION)
    assert "has no primary that the Sentinels know of" in refused(lost.open)


# What it forgets


def test_scripts_that_redis_forgot_are_loaded_again(redis_server: RunningRedis, inbox: RedisInbox) -> None:
    head = inbox.open()
    say(inbox, b"1")
    redis_server.client.script_flush()
    say(inbox, b"2")
    redis_server.client.script_flush()
    assert missed(inbox, head) == ([b"1", b"2"], True)
    redis_server.client.script_flush()
    assert inbox.forget("ada") == 2
    redis_server.client.script_flush()
    inbox.amend("key", b"answer")


def test_a_flushed_redis_begins_a_new_life(redis_server: RunningRedis, inbox: RedisInbox) -> None:
    head = inbox.open()
    (old,) = say(inbox, b"1")
    redis_server.client.flushall()
    for after in (head, old):
        assert missed(inbox, after) == ([], False)
    (new,) = say(inbox, b"2")
    assert new > old
    assert missed(inbox, old) == ([b"2"], False)
    assert missed(inbox, new - 1)[0] == [b"2"]
    assert missed(inbox, new) == ([], True)


def test_offsets_grow_after_a_flush_though_the_clock_went_back(redis_server: RunningRedis) -> None:
    clock = FakeClock()
    inbox = RedisInbox(redis_server.url, RETENTION, clock)
    inbox.open()
    (old,) = say(inbox, b"1")
    redis_server.client.flushall()
    clock.step(-3_600)
    assert missed(inbox, old - 1) == ([], False)
    (new,) = say(inbox, b"2")
    assert new > old
    assert missed(inbox, old - 1) == ([b"2"], False)
    inbox.close()


def test_a_redis_that_lost_the_newest_begins_a_new_life_there(redis_server: RunningRedis) -> None:
    """As a replica that was promoted before it had everything."""
    clock = FakeClock()
    inbox = RedisInbox(redis_server.url, RETENTION, clock)
    inbox.open()
    clock.step(1)
    (kept,) = say(inbox, b"kept")
    keys = [DEFAULT_KEYS.prefix + name for name in ("head", "user:ada")]
    older = [redis_server.client.dump(key) for key in keys]
    clock.step(1)
    (lost,) = say(inbox, b"lost")
    for key, value in zip(keys, older, strict=True):
        redis_server.client.restore(key, 0, value, replace=True)
    redis_server.client.xtrim(DEFAULT_KEYS.log, maxlen=1, approximate=False)
    clock.step(-10)
    assert not missed(inbox, kept)[1]
    (new,) = say(inbox, b"new")
    assert new > lost
    assert not missed(inbox, kept)[1]
    assert missed(inbox, lost) == ([b"new"], False)  # another node, which had not heard of it, may have stored before it
    assert missed(inbox, new) == ([], True)
    inbox.close()


def test_a_lost_head_does_not_stop_the_log(redis_server: RunningRedis) -> None:
    clock = FakeClock()
    inbox = RedisInbox(redis_server.url, RETENTION, clock)
    (old,) = say(inbox, b"1")
    redis_server.client.delete(DEFAULT_KEYS.prefix + "head")
    clock.step(-10)
    other = RedisInbox(redis_server.url, RETENTION, clock)  # which has seen nothing of this
    (new,) = say(other, b"2")
    assert new > old
    inbox.close()
    other.close()


def test_two_processes_share_one_order(redis_server: RunningRedis) -> None:
    clock = FakeClock()
    one, two = (RedisInbox(redis_server.url, RETENTION, clock) for _ in range(2))
    head = one.open()
    assert two.open() == head
    said = [say(each, b"x")[0] for each in (one, two, two, one)]
    assert said == sorted(set(said))
    assert one.open() == two.open() == said[-1]
    assert two.append([Entry(("ada",), b"y", claim=Claim("key", b"d", b"a"))]).outcomes == (said[-1] + 1,)
    assert one.append([Entry(("ada",), b"y", claim=Claim("key", b"d", b"a"))]).outcomes == (
        Repeat(said[-1] + 1, b"d", b"a"),
    )
    one.close()
    two.close()


# Many at once


def test_recoveries_do_not_hold_up_an_append(redis_server: RunningRedis, inbox: RedisInbox) -> None:
    say(inbox, b"x")
    with_all_taken = [inbox._read_slots.acquire(timeout=1) for _ in range(store._READERS)]
    assert all(with_all_taken)
    started = time.monotonic()
    say(inbox, b"y")
    assert time.monotonic() - started < 1
    for _ in with_all_taken:
        inbox._read_slots.release()


def test_it_takes_no_more_connections_than_it_says(redis_server: RunningRedis, inbox: RedisInbox) -> None:
    before = redis_server.client.info("clients")["connected_clients"]
    threads = [threading.Thread(target=lambda: [missed(inbox, 1) for _ in range(50)]) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redis_server.client.info("clients")["connected_clients"] - before <= store._READERS + store._WRITERS


def test_the_offsets_of_today_are_exact_in_lua(redis_server: RunningRedis) -> None:
    clock = FakeClock()
    clock.now = 2**53 - 1_000 * MICROSECONDS
    inbox = RedisInbox(redis_server.url, RETENTION, clock)
    inbox.open()
    said = say(inbox, *[b"%d" % number for number in range(5)])
    assert said == list(range(clock.now + 1, clock.now + 6))
    assert missed(inbox, said[2]) == ([b"3", b"4"], True)
    inbox.close()
