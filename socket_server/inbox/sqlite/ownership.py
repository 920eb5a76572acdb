"""The file of the inbox belongs to this server's user alone: no other user may read notifications."""

import errno
import os
import stat

from socket_server.errors import InboxUnavailable

_PRIVATE = 0o600


def secure(path: str) -> tuple[int, int]:
    """Create the file if it is missing, and let only its owner read and write it; return its device and inode.

    Files that SQLite adds (-wal, -shm) get the mode of the file; existing ones are changed too.
    Raises InboxUnavailable for a symbolic link, anything but a regular file, and a file of another user; OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, _PRIVATE)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise InboxUnavailable(
                f"the inbox {path} is a symbolic link or no file: name the file itself in INBOX_URL"
            ) from None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise InboxUnavailable(f"the inbox {path} is no regular file: name a file in INBOX_URL")
        if found.st_uid != os.geteuid():
            raise InboxUnavailable(
                f"the inbox {path} belongs to another user (id {found.st_uid}): run the server as that user, or "
                f"chown {os.geteuid()} {path}"
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.fchmod(descriptor, _PRIVATE)
    finally:
        os.close(descriptor)
    for suffix in ("-wal", "-shm"):
        _close_to_others(path + suffix)
    return found.st_dev, found.st_ino


def _close_to_others(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return  # it does not exist, and SQLite makes it with the mode of the file
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            os.fchmod(descriptor, _PRIVATE)
    except PermissionError:
        pass
    finally:
        os.close(descriptor)
