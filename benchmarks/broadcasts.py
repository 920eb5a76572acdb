"""The broadcasts that the load generator posts: one notification of a usual size, and request bodies with it."""

import json

NOTIFICATION = {
    "actionKey": "updateTask",
    "title": {"he": "משימה חדשה", "en": "A new task"},
    "body": {"he": "דנה הוסיפה אותך למשימה", "en": "Dana added you to a task"},
    "metadata": {"url": "/tasks/42", "icon": "https://app.example.com/icon.png", "priority": "normal"},
    "data": {"taskId": 42},
}


def broadcast(user_ids: list[str], *, stored: bool) -> dict[str, object]:
    """Return the body of a broadcast. stored: keep it in the inbox; otherwise `ttl` is 0, as the peers store nothing."""
    asked: dict[str, object] = {"userIds": user_ids, "notification": NOTIFICATION}
    return asked if stored else asked | {"ttl": 0}


def body(user_ids: list[str], *, stored: bool = False) -> bytes:
    return json.dumps(broadcast(user_ids, stored=stored), ensure_ascii=False).encode()
