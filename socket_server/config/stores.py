"""INBOX_URL, REDIS_URL, REDIS_PREFIX and WEB_CONCURRENCY: where notifications are kept, and how many processes share it."""

from socket_server.config import redis_url as url_of_redis
from socket_server.config.reader import Reader

MAX_WORKERS = 256  # of one gunicorn
# Why a second process needs Redis.
NEEDS_REDIS = "each worker would know only its own connections, and broadcasts would miss the rest"


def redis_url(read: Reader, name: str) -> str:
    """Return the URL of the Redis that joins the nodes of a cluster; "" if there is none."""
    value = read.raw(name)
    problem = url_of_redis.problem_with(value) if value else ""
    if problem:
        read.problem(f"{name} {problem}")
        return ""
    return value


def redis_prefix(read: Reader, name: str, default: str) -> str:
    """Return what every key in Redis begins with."""
    value = read.text(name, default)
    problem = url_of_redis.problem_with_prefix(value)
    if problem:
        read.problem(f"{name} is {value!r}: {problem}")
    return value


def inbox_url(read: Reader, name: str, redis: str, default: str) -> str:
    """Return the URL of the inbox. redis: that of REDIS_URL, "" if there is none; it is the inbox then."""
    # systemd sets STATE_DIRECTORY to the directory of a service, and so does the Docker image.
    directory = read.raw("STATE_DIRECTORY").partition(":")[0]
    value = read.raw(name) or redis or (f"sqlite:///{directory}/inbox.db" if directory else default)
    scheme, _, rest = value.partition("://")
    if scheme == "sqlite":
        path, _, options = rest.partition("?")
        if not path.startswith("/") or len(path) == 1:
            read.problem(f"{name} names no file: use sqlite:///relative.db or sqlite:////absolute/inbox.db")
        if options.lower() not in ("", "synchronous=normal", "synchronous=full"):
            read.problem(f"{name} has the option {options!r}: the only option is ?synchronous=full")
    elif scheme in url_of_redis.SCHEMES:
        redis_url(read, name)
    elif value != "memory://":
        read.problem(f"{name} names no kind of inbox: use sqlite:///path/inbox.db, redis://host:6379 or memory://")
    if redis and value != redis and not read.has_problem(name, "REDIS_URL"):
        read.problem(
            f"{name} is another store than REDIS_URL: the nodes of a cluster share their inbox in its Redis; "
            f"leave {name} out"
        )
    return value


def workers(read: Reader, name: str, redis: str) -> int:
    """Return the number of worker processes."""
    number = read.integer(name, 1, 1, MAX_WORKERS)
    if number > 1 and not redis and not read.has_problem("REDIS_URL"):
        read.problem(
            f"{name} is {number} without REDIS_URL: {NEEDS_REDIS}; set REDIS_URL, or run one worker "
            f"(unset {name}), which holds MAX_CONNECTIONS by itself"
        )
    return number
