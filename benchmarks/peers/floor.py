"""The bare `send` in Python: one frame to every socket, in a loop. The limit for one system call a delivery.

It serves the clients and publishers of the other contestants and does only what delivery needs: it has no users and no
authentication, and every post goes to all clients that connected before the first post.
"""

import os
import select
import socket

OPEN = b'HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x120{"pingInterval":0}'
WELCOME = b"\x81\x0eauth_success"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
END = b', "ttl": 0}'  # how every request ends

listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=4096)
clients = []


def accept() -> socket.socket:
    sock = listener.accept()[0]
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


while (request := (sock := accept()).recv(65_536)).startswith(b"GET"):
    if b"/socket.io/" in request:
        # Both sides send, as in any WebSocket: the kernel of a client that has only listened acknowledges at other times,
        # at the client's expense.
        sock.send(OPEN)
        sock.recv(65_536)
        sock.send(WELCOME)
        clients.append(sock)
    else:
        sock.send(OK)
        sock.close()

publishers, waiting = [sock], select.poll()
while True:
    while not request.endswith(END):
        request += publishers[0].recv(65_536)
    notification = request.partition(b'"notification": ')[2].removesuffix(END)
    body = b'42["notification",%b,"1795384833960383"]' % notification
    frame = b"\x81\x7e" + len(body).to_bytes(2, "big") + body
    for client in clients:
        client.send(frame)
    publishers[0].send(OK)
    if len(publishers) == 1:
        publishers.append(accept())
        for each in publishers:
            waiting.register(each, select.POLLIN)
    if publishers[1].fileno() in dict(waiting.poll()):
        publishers.reverse()  # alternate if both have posted
    request = publishers[0].recv(65_536)
    if not request:
        break
