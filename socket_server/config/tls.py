"""SSL_CERT and SSL_KEY: the certificate chain and its private key."""

import ssl

from socket_server.config.reader import Reader


def certificate(read: Reader, cert_name: str, key_name: str) -> tuple[str, str]:
    """Return the paths of a PEM certificate chain and its private key; ("", "") if TLS is not served."""
    cert, key = _readable(read, cert_name), _readable(read, key_name)
    for given, missing in ((cert_name, key_name), (key_name, cert_name)):
        if read.raw(given) and not read.raw(missing):
            read.problem(f"{given} is set without {missing}: set both to serve TLS, or neither")
    if cert and key and not read.has_problem(cert_name, key_name):
        try:
            # Without a password callback, OpenSSL would ask for the passphrase on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
        except (OSError, ValueError) as error:
            read.problem(
                f"{cert_name} and {key_name} do not work together ({error}): give a PEM chain and its private key, "
                "without a passphrase"
            )
    return cert, key


def _readable(read: Reader, name: str) -> str:
    path = read.raw(name)
    if path:
        try:
            with open(path, "rb"):
                pass
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no valid path"
            read.problem(f"{name} is {path!r}, which cannot be read ({reason}): name a readable PEM file")
    return path
