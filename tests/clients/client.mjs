// The official client on remote control: commands come in and events go out, each as one line of JSON.
// node client.mjs [PACKAGE]: the package to take it from, for another version than the newest.

import { createInterface } from "node:readline";

const { io } = await import(process.argv[2] ?? "socket.io-client");

const sockets = new Map();

function report(name, event, ...args) {
  const socket = sockets.get(name);
  const transport = socket?.io.engine?.transport?.name ?? null;
  console.log(JSON.stringify({ name, event, args, transport, active: socket?.active ?? false }));
}

const commands = {
  /**
   * login: emitted as the event `auth` at every connect, as an application does.
   * follow: the application says itself where it was, as `lastId`: in its login, or else in `auth` as a function.
   */
  open({ name, url, options, login, follow }) {
    let { lastId } = options.auth ?? {};
    const position = () => (lastId === undefined ? {} : { lastId });
    const auth = follow && !login ? (send) => send({ ...options.auth, ...position() }) : options.auth;
    const socket = io(url, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200, ...options, auth });
    sockets.set(name, socket);
    if (follow) {
      // Where the replay has not come yet, its end is not where the client is.
      socket.on("auth_success", (success) => (lastId ??= success.lastId));
      socket.on("notification", (_, offset) => (lastId = offset));
    }
    socket.io.on("open", () => {
      socket.io.engine.on("upgrade", (transport) => report(name, "upgrade", transport.name));
    });
    socket.on("connect", () => {
      report(name, "connect", socket.id, socket.recovered ?? null, socket.io.engine.id); // null: it came with version 4.6
      if (login) socket.emit("auth", follow ? { ...login, ...position() } : login);
    });
    socket.on("connect_error", (error) => report(name, "connect_error", error.message, statusOf(error)));
    socket.on("disconnect", (reason) => report(name, "disconnect", reason));
    socket.io.on("reconnect_attempt", (number) => report(name, "reconnect_attempt", number));
    socket.onAny((event, ...args) => report(name, event, ...args));
  },

  emit({ name, event, args }) {
    sockets.get(name).emit(event, ...args);
  },

  /** Emit with an acknowledgement, which is reported as the event `ack`. */
  ask({ name, event, args }) {
    sockets.get(name).emit(event, ...args, (...answer) => report(name, "ack", ...answer));
  },

  close({ name }) {
    sockets.get(name).disconnect();
  },

  /** Keep the event loop busy, as a page does that computes. */
  block({ ms }) {
    const end = Date.now() + ms;
    while (Date.now() < end);
  },
};

/** The HTTP status that a connect_error tells of, whatever the transport; null where there is none. */
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
