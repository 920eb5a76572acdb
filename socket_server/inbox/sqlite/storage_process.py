"""The process that owns the SQLite file, so that a slow disk never blocks the event loop of a worker.

Run as `python -m socket_server.inbox.sqlite.storage_process ARGUMENTS` by client.py. It ends when its sockets are
closed, so it never outlives its worker.
"""

import json
import select
import signal
import socket
import sys
from collections.abc import Sequence

from socket_server import log
from socket_server.inbox.inbox import InboxUnavailable, Retention
from socket_server.inbox.sqlite import messages
from socket_server.inbox.sqlite.file import SqliteFile

# How long the keeper sleeps at most before it looks whether maintenance is due.
_REST_MS = 500
# For how long reads are answered before an append that has come meanwhile gets its turn.
READ_S = 0.005

_log = log.logger("Server")


def answer(store: SqliteFile, request: messages.Request) -> messages.Reply:
    """Do what a request asks for. Never raises InboxUnavailable: it becomes the reply Failed."""
    try:
        match request:
            case messages.Open():
                return messages.Done(store.open())
            case messages.Append(entries, after):
                return messages.HasAppended(store.append_encoded(entries, after))
            case messages.Amend(key, text):
                store.amend(key, text)
            case messages.Since(reads):
                return messages.Pages(store.since_each(reads, READ_S))
            case messages.Forget(user_id):
                return messages.Done(store.forget(user_id))
            case messages.Check():
                store.check()
    except InboxUnavailable as error:
        return messages.Failed(str(error))
    except Exception as error:
        _log.exception("unexpected error in the inbox's process")
        store.close()  # to begin again from the file
        return messages.Failed(f"the inbox {store.place}: unexpected {error!r}; the server's log says more")
    return messages.Done()


def serve(store: SqliteFile, channels: Sequence[socket.socket]) -> None:
    """Answer requests until a channel ends; what comes on an earlier channel goes first. In between, maintain the store."""
    poll = select.poll()
    for channel in channels:
        poll.register(channel, select.POLLIN)
    more = True
    while True:
        ready = {fd for fd, _ in poll.poll(0 if more else _REST_MS)}
        for channel in channels:
            if channel.fileno() in ready:
                body = messages.receive(channel)
                if body is None:
                    return
                channel.sendall(messages.encode(answer(store, messages.decode_request(body))))
        try:
            more = store.maintain()
        except InboxUnavailable:
            more = False  # who asks next is told
        except Exception:
            _log.exception("unexpected error in the inbox's maintenance")
            store.close()
            more = False


def main(arguments: str) -> None:
    # The server ends when it is told to, and this process after it, whoever else is sent the signal.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    options = json.loads(arguments)
    channels = [socket.socket(fileno=fd) for fd in options["channels"]]
    for channel in channels:
        channel.setblocking(True)  # gevent made them non-blocking at the server's end, which is the same file
    store = SqliteFile(
        options["path"],
        Retention(options["ttl_s"], options["max_per_user"]),
        synchronous=options["synchronous"],
    )
    try:
        serve(store, channels)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server ended while it was being answered
    finally:
        store.close()


if __name__ == "__main__":
    main(sys.argv[1])
