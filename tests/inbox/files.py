"""A SQLite file with its maintenance, as the storage process has them."""

from typing import Any

from socket_server.inbox.inbox import Retention
from socket_server.inbox.sqlite.file import SqliteFile
from socket_server.inbox.sqlite.maintenance import INDEX_AT, Maintenance


class MaintainedFile(SqliteFile):
    """index_at: see Maintenance."""

    def __init__(self, path: str, retention: Retention, *args: Any, index_at: int = INDEX_AT, **options: Any) -> None:
        super().__init__(path, retention, *args, **options)
        self.maintenance = Maintenance(self, index_at=index_at)

    def maintain(self) -> bool:
        return self.maintenance.run_slice()
