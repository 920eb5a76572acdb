// The official client, driven by commands: each command and each reported event is one line of JSON.
// node client.mjs [PACKAGE]: the package of the client, for another version than the newest.

import { createInterface } from "node:readline";

const { io } = await import(process.argv[2] ?? "socket.io-client");

const sockets = new Map();
const logins = new Map(); // what each socket emits as `auth` when it connects

function report(name, event, ...args) {
  const socket = sockets.get(name);
  const transport = socket?.io.engine?.transport?.name ?? null;
  console.log(JSON.stringify({ name, event, args, transport, active: socket?.active ?? false }));
}

const commands = {
  /**
   * login: emitted as the event `auth` at every connect, as applications do.
   * follow: send the last offset as `lastId`: in the login if there is one, else in `auth`.
   */
  open({ name, url, options, login, follow }) {
    let { lastId } = options.auth ?? {};
    const position = () => (lastId === undefined ? {} : { lastId });
    const auth = follow && !login ? (send) => send({ ...options.auth, ...position() }) : options.auth;
    const socket = io(url, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200, ...options, auth });
    sockets.set(name, socket);
    logins.set(name, login);
    if (follow) {
      // Until the replay has arrived, lastId of auth_success is not the last offset that was received.
      socket.on("auth_success", (success) => (lastId ??= success.lastId));
      socket.on("notification", (_, offset) => (lastId = offset));
    }
    socket.io.on("open", () => {
      socket.io.engine.on("upgrade", (transport) => report(name, "upgrade", transport.name));
    });
    socket.on("connect", () => {
      report(name, "connect", socket.id, socket.recovered ?? null, socket.io.engine.id); // null: before version 4.6
      const current = logins.get(name);
      if (current) socket.emit("auth", follow ? { ...current, ...position() } : current);
    });
    socket.on("connect_error", (error) => report(name, "connect_error", error.message, statusOf(error)));
    socket.on("disconnect", (reason) => report(name, "disconnect", reason));
    socket.io.on("reconnect_attempt", (number) => report(name, "reconnect_attempt", number));
    socket.onAny((event, ...args) => report(name, event, ...args));
  },

  emit({ name, event, args }) {
    sockets.get(name).emit(event, ...args);
  },

  /** Emit an event with one binary argument and an acknowledgement. */
  emitBytes({ name, event, bytes }) {
    sockets.get(name).emit(event, Uint8Array.from(bytes), () => report(name, "ack"));
  },

  /** Change what is emitted as `auth` from the next connect on, and connect if the server has disconnected the socket. */
  reconnect({ name, login }) {
    logins.set(name, login);
    sockets.get(name).connect();
  },

  /** Emit with an acknowledgement, which is reported as the event `ack`. */
  ask({ name, event, args }) {
    sockets.get(name).emit(event, ...args, (...answer) => report(name, "ack", ...answer));
  },

  close({ name }) {
    sockets.get(name).disconnect();
  },

  /** Keep the event loop busy, as a page with a long computation does. */
  block({ ms }) {
    const end = Date.now() + ms;
    while (Date.now() < end);
  },
};

/** The HTTP status in a connect_error, over either transport; null if it has none. */
function statusOf({ description }) {
  if (typeof description === "number") return description;
  const found = /Unexpected server response: (\d+)/.exec(description?.message ?? description?.error?.message ?? "");
  return found ? Number(found[1]) : null;
}

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const { command, ...rest } = JSON.parse(line);
    commands[command](rest);
  })
  .on("close", () => process.exit());

console.log(JSON.stringify({ name: null, event: "ready", args: [] }));
