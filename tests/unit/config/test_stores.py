"""Where notifications are kept, and which servers act as one."""

import pytest

from socket_server.config.weaknesses import remarks
from tests.unit.config.reading import problem, read

# The inbox


@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "sqlite:///inbox.db",
        "sqlite:///data/inbox.db",
        "sqlite:////var/lib/socket-server/inbox.db",
        "sqlite:////with%20space/inbox.db",
        "sqlite:////x/inbox.db?synchronous=full",
        "sqlite:////x/inbox.db?synchronous=NORMAL",
        "redis://localhost:6379/0",
        "rediss://user:password@redis.example:6380",
        "unix:///run/redis.sock",
        "redis+sentinel://one:26379,two:26379/main",
    ],
)
def test_an_inbox_is_memory_a_file_or_redis(url: str) -> None:
    assert read(INBOX_URL=url).inbox_url == url
    assert read(INBOX_URL=f"  {url} ").inbox_url == url


@pytest.mark.parametrize(
    "url",
    [
        "inbox.db",
        "/var/lib/inbox.db",
        "memory",
        "memory:",
        "memory://somewhere",
        "sqlite",
        "sqlite:",
        "sqlite:inbox.db",
        "sqlite://",
        "sqlite:///",
        "sqlite://inbox.db",
        "sqlite://host/inbox.db",
        "sqlite:///?synchronous=full",
        "sqlite:///inbox.db?synchronous=off",
        "sqlite:///inbox.db?mode=ro",
        "sqlite:///inbox.db?synchronous=full&x=1",
        "postgres://db/inbox",
        "http://localhost:6379",
        "://",
        "nonsense",
    ],
)
def test_another_inbox_is_a_problem(url: str) -> None:
    assert problem(INBOX_URL=url).startswith("INBOX_URL ")


def test_an_inbox_in_memory_is_a_remark() -> None:
    assert any("INBOX_URL=memory://" in text for text in remarks(read(INBOX_URL="memory://")))
    assert not any("INBOX_URL" in text for text in remarks(read(INBOX_URL="sqlite:///inbox.db")))


# Several workers


@pytest.mark.parametrize("value", ["0", "auto", "-1", "1.0", "1000000"])
def test_another_number_of_workers_is_a_problem(value: str) -> None:
    assert problem(WEB_CONCURRENCY=value, REDIS_URL="redis://localhost").startswith("WEB_CONCURRENCY")


def test_several_workers_need_redis() -> None:
    assert "REDIS_URL" in problem(WEB_CONCURRENCY="4")
    assert read(WEB_CONCURRENCY="4", REDIS_URL="redis://localhost").workers == 4
    assert read().workers == 1


# Several nodes


def test_the_inbox_of_a_cluster_is_its_redis() -> None:
    assert read(REDIS_URL="redis://one").inbox_url == "redis://one"
    assert read(REDIS_URL="redis://one", STATE_DIRECTORY="/data", INBOX_URL="").inbox_url == "redis://one"
    assert read(REDIS_URL="redis://one", INBOX_URL="redis://one").redis_url == "redis://one"
    for other in ("memory://", "sqlite:///inbox.db", "redis://two"):
        assert "REDIS_URL" in problem(REDIS_URL="redis://one", INBOX_URL=other)
    assert read().redis_url == ""


def test_the_default_inbox_is_in_the_state_directory_of_the_service() -> None:
    assert read(STATE_DIRECTORY="/var/lib/it").inbox_url == "sqlite:////var/lib/it/inbox.db"
    assert read(STATE_DIRECTORY="/var/lib/it:/var/lib/other").inbox_url == "sqlite:////var/lib/it/inbox.db"
    assert read(STATE_DIRECTORY="/var/lib/it", INBOX_URL="memory://").inbox_url == "memory://"


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "memory://", "sqlite:///inbox.db"])
def test_another_url_of_redis_is_a_problem(url: str) -> None:
    assert problem(REDIS_URL=url).startswith("REDIS_URL")


def test_transports_are_those_of_engine_io() -> None:
    assert read().transports == ("polling", "websocket")
    assert read(TRANSPORTS="websocket").transports == ("websocket",)
    assert problem(TRANSPORTS="websocket,carrier-pigeon").startswith("TRANSPORTS")


def test_one_worker_is_the_default() -> None:
    assert read(WEB_CONCURRENCY="1") == read()
