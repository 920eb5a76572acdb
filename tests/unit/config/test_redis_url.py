"""REDIS_URL and REDIS_PREFIX: what may be in them, and that no message repeats a password."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.config.redis_url import problem_with, problem_with_prefix

GOOD = [
    "redis://localhost",
    "redis://localhost:6379",
    "redis://localhost:6379/",
    "redis://localhost/15",
    "redis://:secret@redis.example:6379/0",
    "redis://user:p%40ss%2Fw%23%3F@redis.example",
    "redis://user@redis.example",
    "rediss://user:secret@[::1]:6380/1?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem",
    "redis://localhost?db=3",
    "unix:///run/redis.sock",
    "unix://:secret@/run/redis.sock?db=2",
    "redis+sentinel://one:26379,two/main/0",
    "redis+sentinel://:secret@one,two,[::1]:26379/main",
]


@pytest.mark.parametrize("url", GOOD)
def test_a_good_url_has_no_problem(url: str) -> None:
    assert problem_with(url) == ""


@pytest.mark.parametrize(
    "option",
    [
        *("protocol=3", "decode_responses=true", "encoding=latin-1", "socket_timeout=60", "socket_connect_timeout=1"),
        *("max_connections=1", "retry_on_timeout=true", "health_check_interval=0", "client_name=x", "socket_keepalive=0"),
        *("timeout=1", "single_connection_client=1", "retry_on_error=x", "socket_read_size=1", "encoding_errors=ignore"),
    ],
)
@pytest.mark.parametrize("base", ["redis://localhost?", "rediss://localhost/0?db=1&", "unix:///run/redis.sock?"])
def test_an_option_that_the_server_relies_on_is_refused_by_name(base: str, option: str) -> None:
    assert f"has the option {option.partition('=')[0]}," in problem_with(base + option)


@pytest.mark.parametrize("url", ["redis://localhost?nonsense=1", "redis://localhost?ssl_cert_reqs=none", "redis://a?a=b"])
def test_an_unknown_option_is_refused_by_name(url: str) -> None:
    assert "has the unknown option" in problem_with(url)


@pytest.mark.parametrize(
    "url",
    [
        *("redis://host/staging", "redis://host/0x1", "redis://host/-1", "redis://host/1.5", "redis://host?db=staging"),
        *("redis+sentinel://one/main/staging", "redis://host/ ", "redis://host/١"),
    ],
)
def test_a_database_is_a_number(url: str) -> None:
    assert "number" in problem_with(url) or "white space" in problem_with(url)


PASSWORDS = ["pa@ss-part", "pa/ss-part", "pa#ss-part", "pa?ss-part", "pa@@ss-part", "@ss-part", "ss-part@", "a/b@ss-part"]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("form", ["redis://:{}@host:6379/0", "redis://user:{}@host", "unix://:{}@/run/redis.sock"])
def test_an_unencoded_password_is_refused_and_no_part_of_it_is_shown(form: str, password: str) -> None:
    problem = problem_with(form.format(password))
    assert problem
    assert "ss-part" not in problem
    assert "percent-encode" in problem


@pytest.mark.parametrize(
    "url",
    [
        *("", "redis", "redis:", "http://localhost", "redis://host:port", "redis://host:0", "redis://host:99999"),
        *("redis://ho st", "redis://[::1", "unix://", "unix:///", "unix://host/run/redis.sock", "redis+sentinel://"),
        *("redis+sentinel://one", "redis+sentinel://,two/main", "redis://host/0/1", "redis://host\x00"),
    ],
)
def test_what_is_no_url_of_redis_has_a_problem(url: str) -> None:
    assert problem_with(url)


@given(st.text())
def test_any_text_is_judged_without_an_error_and_without_being_repeated(text: str) -> None:
    secret = "an-unlikely-password"
    for url in (text, f"redis://{text}", f"redis://:{secret}{text}@host", f"redis://:{text}{secret}@host/0"):
        assert secret not in problem_with(url)


@pytest.mark.parametrize("prefix", ["{socket-server}:", "{staging}:", "app:{x}:", "{a}"])
def test_a_prefix_has_a_hash_tag(prefix: str) -> None:
    assert problem_with_prefix(prefix) == ""


@pytest.mark.parametrize("prefix", ["staging:", "{}:", "{a b}", "{é}", "{a}*", "x" * 65, "{a}\n"])
def test_a_prefix_that_keys_cannot_have_has_a_problem(prefix: str) -> None:
    assert problem_with_prefix(prefix)
