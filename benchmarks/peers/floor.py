"""The floor in Python: the bare `send` of one frame to every socket, in a loop; nothing cheaper can deliver in Python.

argv: port, connections, bytes of the frame, rounds. A byte from the first client starts the rounds.
"""

import socket
import sys

port, connections, size, rounds = map(int, sys.argv[1:])
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", port))
listener.listen(4096)
clients = []
for _ in range(connections):
    client, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    clients.append(client)
body = b'42["notification",' + b"x" * (size - 20) + b"]"
frame = b"\x81\x7e" + len(body).to_bytes(2, "big") + body
clients[0].recv(1)
for _ in range(rounds):
    for client in clients:
        client.send(frame)
clients[0].recv(1)
