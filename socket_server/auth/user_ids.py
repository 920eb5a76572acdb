"""User ids: the one text form in which they are compared, and their size limit. Pure functions."""

import re
from typing import Any

# A longer id is refused in every request, and a token that holds one is invalid. Each online user's id is held in memory
# and each stored notification repeats it.
MAX_USER_ID_BYTES = 256

_SURROGATE = re.compile("[\ud800-\udfff]")


def user_id_text(value: Any) -> str | None:
    """Return a user id as text, or None if the value cannot be one.

    A whole number is its decimal text, as in `userIds` of `/broadcast`. Half of a surrogate pair has no UTF-8 form, so a
    text that holds one is not an id.
    """
    if isinstance(value, str):
        return value if value.isascii() or not _SURROGATE.search(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None


def is_too_long(user_id: str) -> bool:
    """Return whether a user id exceeds MAX_USER_ID_BYTES in UTF-8."""
    if user_id.isascii():
        return len(user_id) > MAX_USER_ID_BYTES
    return len(user_id.encode("utf-8", "surrogatepass")) > MAX_USER_ID_BYTES
