"""HOST, BASE_PATH, CLIENT_URL and TRUSTED_PROXIES."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.config import from_environ
from socket_server.config.addresses import origins
from socket_server.config.reader import Reader
from tests.unit.config.reading import problem, problems, read

# CLIENT_URL


def read_origins(value: str, *, development: bool = False) -> tuple[tuple[str, ...], list[str]]:
    reader = Reader({"CLIENT_URL": value})
    return origins(reader, "CLIENT_URL", (), development=development), reader.problems


@pytest.mark.parametrize(
    ("value", "origin"),
    [
        ("https://*.example.com", "https://*.example.com"),
        ("HTTPS://*.Example.com:8443/", "https://*.example.com:8443"),
        ("https://*.example.com:443", "https://*.example.com"),
        ("https://דוגמה.co.il", "https://xn--6dbbec0c.co.il"),
        ("https://*.bücher.example", "https://*.xn--bcher-kva.example"),
        ("https://straße.example", "https://xn--strae-oqa.example"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("http://[0:0:0:0:0:0:0:1]:5173", "http://[::1]:5173"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("http://my_host:1", "http://my_host:1"),
        ("null", "null"),
        ("file://", "file://"),
        ("app://.", "app://."),
        ("ionic://localhost", "ionic://localhost"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_an_origin_is_what_browsers_send(value: str, origin: str) -> None:
    assert read_origins(value) == ((origin,), [])


@pytest.mark.parametrize(
    "value",
    [
        "http://*.example.com",
        "https://*",
        "https://*.com",
        "https://*.*.example.com",
        "https://a.*.example.com",
        "https://a*.example.com",
        "https://*example.com",
        "https://*.127.0.0.1",
        "https://*.[::1]",
        "https://example.com:0",
        "https://example.com:99999",
        "https://example.com:x",
        "https://[::1",
        "https://::1",
        "https://999.1.1.1",
        "https://-a.example",
        "https://a..example",
        "https://" + "a" * 64 + ".example",
        "https://exam ple.com",
        "https://example.com\\x",
        "https://",
        "example.com",
    ],
)
def test_what_can_never_match_is_a_problem(value: str) -> None:
    found, texts = read_origins(value)
    assert found == ()
    assert len(texts) == 1
    assert texts[0].startswith("CLIENT_URL has ")


def test_in_development_a_wildcard_may_be_plain_http() -> None:
    assert read_origins("http://*.localhost:5173", development=True) == (("http://*.localhost:5173",), [])
    assert read_origins("http://*.example.test:5173", development=True) == (("http://*.example.test:5173",), [])


@given(st.text())
def test_any_text_is_origins_or_problems(value: str) -> None:
    found, texts = read_origins(value)
    assert len(found) + len(texts) == len([word for word in value.strip().split(",") if word.strip()])
    assert all(origin.isascii() for origin in found if origin.startswith("http"))


def test_a_star_is_refused_in_production_even_among_others() -> None:
    for value in ("*", "https://a.example,*"):
        assert problem(CLIENT_URL=value).startswith("CLIENT_URL is '*'")
    assert from_environ({"APP_ENV": "development", "CLIENT_URL": "*"}).client_origins == ("*",)


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("https://a.example", ("https://a.example",)),
        (" https://a.example , http://b.example:8080 ", ("https://a.example", "http://b.example:8080")),
        ("HTTPS://A.Example/", ("https://a.example",)),
        ("https://a.example:443", ("https://a.example",)),
        ("http://a.example:80/", ("http://a.example",)),
        ("https://a.example:80", ("https://a.example:80",)),
        ("http://[::1]:5173", ("http://[::1]:5173",)),
        ("capacitor://localhost", ("capacitor://localhost",)),
    ],
)
def test_an_origin_is_kept_as_browsers_write_it(value: str, origins: tuple[str, ...]) -> None:
    assert read(CLIENT_URL=value).client_origins == origins


@pytest.mark.parametrize(
    "value",
    [
        "a.example",
        "https://",
        "https://a.example/path",
        "https://a.example?x",
        "https://u@a.example",
        "//a.example",
        "https://a b",
    ],
)
def test_what_is_not_an_origin_is_a_problem(value: str) -> None:
    assert problem(CLIENT_URL=value).startswith("CLIENT_URL has")


# HOST, BASE_PATH, TRUSTED_PROXIES


def test_proxies_are_addresses_or_networks() -> None:
    assert [str(network) for network in read(TRUSTED_PROXIES="10.1.2.3/8, ::1").trusted_proxies] == [
        "10.0.0.0/8",
        "::1/128",
    ]
    found = problems(TRUSTED_PROXIES="nonsense, 10.0.0.0/33, 127.0.0.1")
    assert len(found) == 2
    assert all(text.startswith("TRUSTED_PROXIES has") for text in found)


@pytest.mark.parametrize(
    ("value", "network"),
    [("::ffff:10.0.0.0/104", "10.0.0.0/8"), ("::ffff:127.0.0.1", "127.0.0.1/32"), ("::ffff:0:0/96", "0.0.0.0/0")],
)
def test_an_ipv4_mapped_network_is_ipv4(value: str, network: str) -> None:
    assert [str(each) for each in read(TRUSTED_PROXIES=value).trusted_proxies] == [network]


def test_the_peer_of_a_unix_socket_is_a_proxy_if_it_is_named() -> None:
    found = read(TRUSTED_PROXIES="unix, 10.0.0.0/8")
    assert found.trust_unix_peer
    assert len(found.trusted_proxies) == 1
    assert not read().trust_unix_peer


@pytest.mark.parametrize("value", ["/push", "/push/", "/a/b-c_d.e~f", ""])
def test_a_base_path_has_no_slash_at_its_end(value: str) -> None:
    assert read(BASE_PATH=value).base_path == value.rstrip("/")
    assert read(BASE_PATH=value).local_url.endswith(value.rstrip("/"))


@pytest.mark.parametrize("value", ["push", "//push", "/a//b", "/../x", "/./x", "/a b", "/a%20b", "/a?b", "/é", "/.."])
def test_another_base_path_is_a_problem(value: str) -> None:
    assert problem(BASE_PATH=value).startswith("BASE_PATH is")


@pytest.mark.parametrize("value", ["127.0.0.1", "::", "::1", "0.0.0.0", "localhost"])
def test_a_host_is_an_address_or_a_name(value: str) -> None:
    assert read(HOST=value).host == value


@pytest.mark.parametrize(
    "value", ["[::1]", "127.0.0.1:3001", "http://localhost", "999.1.1.1", "a b", "no-such-host.invalid", "::1::", "é"]
)
def test_another_host_is_a_problem(value: str) -> None:
    assert problem(HOST=value).startswith("HOST is")


def test_a_problem_with_control_characters_is_one_line() -> None:
    for name in ("HOST", "PORT", "BASE_PATH", "NODE_NAME"):
        text = problem(**{name: "a\nb\x1b[31m"})
        assert "\n" not in text
        assert "\x1b" not in text
