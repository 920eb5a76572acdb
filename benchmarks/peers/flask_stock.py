"""A contestant: a minimal server on stock Flask-SocketIO with a room for each user, as its documentation suggests."""

import os
from typing import Any

import jwt
from flask import Flask, request
from flask_socketio import SocketIO, disconnect, emit, join_room

app = Flask(__name__)
socketio = SocketIO(
    app, async_mode="gevent", cors_allowed_origins="*", ping_interval=float(os.environ.get("PING_INTERVAL", 25))
)
KEY = "Bearer " + os.environ["API_KEYS"]
SECRET = os.environ["JWT_SECRET"]
online: dict[str, int] = {}


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "healthy"}


@app.post("/broadcast")
def broadcast() -> Any:
    if request.headers.get("Authorization") != KEY:
        return {"error": "Unauthorized"}, 401
    body = request.get_json()
    delivered = sockets = 0
    for user_id in body["userIds"]:
        count = online.get(user_id, 0)
        if count:
            socketio.emit("notification", body["notification"], to=user_id)
            delivered += 1
            sockets += count
    return {"success": True, "deliveredTo": delivered, "totalSockets": sockets, "requestedUsers": len(body["userIds"])}


@socketio.on("connect")
def connect(auth: dict[str, str]) -> None:
    try:
        user_id = jwt.decode(auth["token"], SECRET, algorithms=["HS256"])["id"]
    except Exception:
        emit("auth_error", {"message": "Invalid or expired JWT"})
        disconnect()
        return
    join_room(user_id)
    online[user_id] = online.get(user_id, 0) + 1
    emit("auth_success", {"userId": user_id})


@socketio.on("disconnect")
def leave(reason: str) -> None:
    pass
