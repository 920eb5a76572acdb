"""How reading a request can fail. After each of these the connection is closed."""


class HttpError(Exception):
    """A request that is answered with an error by the HTTP layer itself."""

    def __init__(self, status: str, message: str, *headers: tuple[str, str]) -> None:
        """status: code and reason, such as "400 Bad Request". headers: of the response."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


class RefusedError(Exception):
    """A request that was refused by its head, before its body was read. response: the bytes to send."""

    def __init__(self, response: bytes) -> None:
        super().__init__("refused by its head")
        self.response = response
