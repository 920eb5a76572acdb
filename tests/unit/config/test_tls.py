"""SSL_CERT and SSL_KEY."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.unit.config.reading import problem, problems, read
from tests.unit.keypairs import private_key, private_pem


def certificate(folder: Path, passphrase: bytes = b"") -> tuple[str, str]:
    """Write a certificate for localhost and its key; return their paths."""
    key, name = private_key("P-256"), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), start, start.replace(year=2099)
    )
    hidden = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    (folder / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
    return str(folder / "cert.pem"), str(folder / "key.pem")


def test_certificate_and_key_are_given_together(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    assert problem(SSL_CERT=cert).startswith("SSL_CERT is set without SSL_KEY")
    assert problem(SSL_KEY=key).startswith("SSL_KEY is set without SSL_CERT")
    found = read(SSL_CERT=cert, SSL_KEY=key)
    assert (found.ssl_cert, found.ssl_key) == (cert, key)
    assert found.local_url.startswith("https://")


def test_a_key_of_another_certificate_is_a_problem(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    other = tmp_path / "other.pem"
    for content in ("nonsense", "", private_pem("P-256", 1), private_pem("RSA")):
        other.write_text(content)
        assert problem(SSL_CERT=cert, SSL_KEY=str(other)).startswith("SSL_CERT")
        assert problem(SSL_CERT=str(other), SSL_KEY=key).startswith("SSL_CERT")
    assert problem(SSL_CERT=key, SSL_KEY=cert).startswith("SSL_CERT")


def test_a_key_with_a_passphrase_is_a_problem_and_no_prompt(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, b"a passphrase")
    assert "passphrase" in problem(SSL_CERT=cert, SSL_KEY=key)


def test_a_certificate_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    found = problems(SSL_CERT=str(tmp_path / "missing"), SSL_KEY=str(tmp_path))
    assert [text.split(" ")[0] for text in found] == ["SSL_CERT", "SSL_KEY"]
