"""The settings by which tokens are verified."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from socket_server.config import (
    ASYMMETRIC_ALGORITHMS,
    EC_ALGORITHMS,
    EDDSA_ALGORITHMS,
    HMAC_ALGORITHMS,
    RSA_ALGORITHMS,
    algorithms_of_pem,
    from_environ,
)
from socket_server.errors import ConfigError
from tests.unit.config.reading import problem, read
from tests.unit.keypairs import private_key, private_pem, public_pem

# Keys


KINDS = [
    ("RSA", RSA_ALGORITHMS),
    ("P-256", ("ES256",)),
    ("P-384", ("ES384",)),
    ("P-521", ("ES512",)),
    ("Ed25519", EDDSA_ALGORITHMS),
    ("Ed448", EDDSA_ALGORITHMS),
]


@pytest.mark.parametrize(("kind", "algorithms"), KINDS)
def test_a_public_key_is_given_as_a_pem_on_one_line_or_many_or_by_its_path(
    kind: str, algorithms: tuple[str, ...], tmp_path: Path
) -> None:
    pem = public_pem(kind)
    path = tmp_path / "public.pem"
    path.write_text(pem)
    for value in (pem, pem.strip(), pem.replace("\n", "\\n"), pem.replace("\n", "\r\n"), str(path)):
        found = from_environ({"API_KEYS": "k", "JWT_PUBLIC_KEY": value})
        assert found.jwt_algorithms == algorithms
        assert algorithms_of_pem(found.jwt_public_key) == algorithms


def test_an_rsa_key_in_pkcs_1_is_accepted() -> None:
    pem = private_key("RSA").public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()
    assert from_environ({"API_KEYS": "k", "JWT_PUBLIC_KEY": pem}).jwt_algorithms == RSA_ALGORITHMS


@pytest.mark.parametrize("kind", ["RSA", "P-256", "Ed25519"])
@pytest.mark.parametrize("how", ["value", "escaped", "path"])
def test_a_private_key_is_refused_however_it_is_given(kind: str, how: str, tmp_path: Path) -> None:
    pem = private_pem(kind)
    path = tmp_path / "private.pem"
    path.write_text(pem)
    value = {"value": pem, "escaped": pem.replace("\n", "\\n"), "path": str(path)}[how]
    text = problem(JWT_PUBLIC_KEY=value)
    assert text.startswith("JWT_PUBLIC_KEY holds a private key")
    assert pem.splitlines()[1] not in text


@pytest.mark.parametrize("kind", ["X25519", "DSA", "P-224"])
def test_a_kind_of_key_that_jws_does_not_use_is_a_problem(kind: str) -> None:
    assert problem(JWT_PUBLIC_KEY=public_pem(kind)).startswith("JWT_PUBLIC_KEY is")


@pytest.mark.parametrize(
    "value",
    [
        "/no/such/file.pem",
        "/",
        "x" * 5_000,
        "nonsense",
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\\nשלום\\n-----END PUBLIC KEY-----",
    ],
)
def test_another_text_is_one_problem(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_environ({"API_KEYS": "k", "JWT_PUBLIC_KEY": value, "JWT_ALGORITHMS": "RS256"})
    (text,) = caught.value.problems
    assert text.startswith("JWT_PUBLIC_KEY")


def test_a_file_without_a_key_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for content in (b"", b"\xff\xfe", b"nonsense"):
        path.write_bytes(content)
        assert problem(JWT_PUBLIC_KEY=str(path)).startswith("JWT_PUBLIC_KEY")


@pytest.mark.parametrize(
    "url", ["https://idp.example/jwks", "http://localhost:8080/jwks", "http://127.0.0.1/x", "http://[::1]:1/x"]
)
def test_a_key_set_is_behind_https_or_on_this_machine(url: str) -> None:
    found = from_environ({"API_KEYS": "k", "JWT_JWKS_URL": url})
    assert found.jwt_jwks_url == url
    assert found.jwt_algorithms == ASYMMETRIC_ALGORITHMS


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example/jwks",
        "ftp://idp.example",
        "idp.example",
        "https://",
        "file:///etc/passwd",
        "https:///x",
        "https://[::1",
        "https://[x]/",
    ],
)
def test_another_url_of_a_key_set_is_a_problem(url: str) -> None:
    assert problem(JWT_JWKS_URL=url).startswith("JWT_JWKS_URL")


def test_in_development_a_key_set_may_be_behind_plain_http() -> None:
    assert from_environ({"APP_ENV": "development", "JWT_JWKS_URL": "http://idp.example/jwks"}).jwt_jwks_url


# Algorithms


RSA_ONLY = {"JWT_SECRET": "", "JWT_PUBLIC_KEY": public_pem("RSA")}


@pytest.mark.parametrize("value", ["none", "None", "NONE", "HS256,none", "hs256", "XS256", "HS256 HS384", "RS256", "EdDSA"])
def test_an_algorithm_that_a_secret_does_not_verify_is_a_problem(value: str) -> None:
    assert problem(JWT_ALGORITHMS=value).startswith("JWT_ALGORITHMS")


@pytest.mark.parametrize("value", ["HS256", "RS256,HS256", "HS512", "none", "ES256", "EdDSA"])
def test_with_only_a_public_key_hmac_and_other_kinds_are_a_problem(value: str) -> None:
    assert problem(**RSA_ONLY, JWT_ALGORITHMS=value).startswith("JWT_ALGORITHMS")


@pytest.mark.parametrize("value", ["HS256", "none", "RS256,HS512"])
def test_with_only_a_key_set_hmac_is_a_problem(value: str) -> None:
    assert problem(JWT_SECRET="", JWT_JWKS_URL="https://idp.example/jwks", JWT_ALGORITHMS=value).startswith(
        "JWT_ALGORITHMS"
    )


def test_the_list_narrows_what_the_keys_can_verify() -> None:
    assert read(JWT_ALGORITHMS="HS512 , HS256").jwt_algorithms == ("HS512", "HS256")
    assert read(**RSA_ONLY, JWT_ALGORITHMS="PS256").jwt_algorithms == ("PS256",)
    both = {"JWT_PUBLIC_KEY": public_pem("P-256")}
    assert read(**both).jwt_algorithms == (*HMAC_ALGORITHMS, "ES256")
    assert read(**both, JWT_ALGORITHMS="HS256,ES256").jwt_algorithms == ("HS256", "ES256")
    assert read(JWT_ALGORITHMS=" , ").jwt_algorithms == HMAC_ALGORITHMS


def test_no_algorithm_of_any_key_is_none_or_hmac() -> None:
    assert not set(ASYMMETRIC_ALGORITHMS) & {"none", *HMAC_ALGORITHMS}
    assert set(EC_ALGORITHMS) < set(ASYMMETRIC_ALGORITHMS)
