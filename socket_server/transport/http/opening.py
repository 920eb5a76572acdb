"""The beginning of a connection, before its first request: the PROXY header and the TLS handshake.

Both are read under the connection's deadline: OpenConnections shuts it down, and reading fails.
"""

import _socket
import ssl
from typing import Any

from socket_server.transport.http.proxy_protocol import MAX_HEADER_BYTES, Address, ProxyProtocol


def read_proxy_header(sock: Any, protocol: ProxyProtocol) -> tuple[Address | None, bytes]:
    """Read the PROXY header, if there is one, and not a byte more.

    sock: a gevent socket. Returns the client's address (proxy_protocol.Header.client), and bytes that belong to what
    follows: they looked like the beginning of a header. Raises ValueError for a malformed header.
    """
    data = b""
    while True:
        seen = sock.recv(MAX_HEADER_BYTES, _socket.MSG_PEEK)
        if not seen:
            return None, data
        header = protocol.parse(data + seen)
        if header is None:
            data += sock.recv(len(seen))
        elif header.size == 0:
            return None, data
        else:
            left = header.size - len(data)
            while left:
                left -= len(sock.recv(left))
            return header.client, b""


def start_tls(sock: Any, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a TLS socket, whose handshake is still to be done.

    Blocks until the client has sent something: a silent client must not cost the memory of a TLS connection, 50 KB.
    """
    sock.recv(1, _socket.MSG_PEEK)
    return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
