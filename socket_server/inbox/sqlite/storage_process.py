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
from socket_server.inbox.sqlite.maintenance import Maintenance

# Without requests, maintenance is looked after this often.
_IDLE_MS = 500
# Reads are answered for this long before an append that has arrived is answered first.
READ_S = 0.005

_log = log.logger("Server")


def answer(store: SqliteFile, request: messages.Request) -> messages.Reply:
    """Return the reply to a request. It never raises: an error of the store becomes the reply Failed."""
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
        _log.exception("unexpected error in the storage process")
        store.close()  # memory and file may differ: load the file again
        return messages.Failed(f"the inbox {store.place}: unexpected {error!r}; the server's log has the details")
    return messages.Done()


def serve(store: SqliteFile, maintenance: Maintenance, channels: Sequence[socket.socket]) -> None:
    """Answer requests until a channel is closed. Earlier channels have priority. Between requests, maintain the store."""
    poll = select.poll()
    for channel in channels:
        poll.register(channel, select.POLLIN)
    more = True
    while True:
        ready = {fd for fd, _ in poll.poll(0 if more else _IDLE_MS)}
        for channel in channels:
            if channel.fileno() in ready:
                body = messages.receive(channel)
                if body is None:
                    return
                channel.sendall(messages.encode(answer(store, messages.decode_request(body))))
        try:
            more = maintenance.run_slice()
        except InboxUnavailable:
            more = False  # the next request reports it
        except Exception:
            _log.exception("unexpected error in the maintenance of the inbox")
            store.close()
            more = False


def main(arguments: str) -> None:
    """Serve the inbox. arguments: JSON, see client.StorageProcess."""
    # A signal to the process group ends the server, and then this process by the end of its sockets.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    options = json.loads(arguments)
    channels = [socket.socket(fileno=fd) for fd in options["channels"]]
    for channel in channels:
        channel.setblocking(True)  # gevent has made the open file, which both ends share, non-blocking
    store = SqliteFile(
        options["path"],
        Retention(options["ttl_s"], options["max_per_user"]),
        synchronous=options["synchronous"],
    )
    try:
        serve(store, Maintenance(store), channels)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server ended while it was answered
    finally:
        store.close()


if __name__ == "__main__":
    main(sys.argv[1])
