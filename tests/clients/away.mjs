// Official clients that keep a journal, on remote control: commands come in and reports go out, each as one line of JSON.
// They are opened as an application opens them, and know nothing of recovery: what they get, the stock client gets them.

import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const connections = new Map(); // name -> {received: [[number, offset], …], numbers: Set, events: [[time, event, …], …]}
let awaited; // the notification that all of them are to receive

const tell = (event, values) => console.log(JSON.stringify({ event, ...values }));
const all = (condition) => [...connections.values()].every(condition);

function open({ name, url, options }) {
  const own = { received: [], numbers: new Set(), events: [], authenticated: false };
  connections.set(name, own);
  const note = (...what) => own.events.push([Date.now(), ...what]);

  const socket = io(url, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200, ...options });
  own.state = () => {
    const { readyState, upgrading, transport } = socket.io.engine;
    return { connected: socket.connected, engine: readyState, upgrading, transport: [transport?.name, transport?.readyState] };
  };
  socket.on("connect", () => note("connect", socket.recovered, socket.io.engine.transport.name));
  socket.on("disconnect", (reason) => note("disconnect", reason, socket.io.engine.upgrading ? "while upgrading" : ""));
  socket.on("auth_error", (error) => note("auth_error", error.code));
  socket.on("auth_success", (success) => {
    note("auth_success", success.recovered, success.replayed, success.lastId);
    if (own.authenticated) return;
    own.authenticated = true;
    if (all((each) => each.authenticated)) tell("all authenticated");
  });
  socket.on("notification", (notification, offset) => {
    const number = notification.data.n;
    own.received.push([number, offset]);
    own.numbers.add(number);
    if (number === awaited && all((each) => each.numbers.has(number))) tell("all have", { number });
  });
}

const commands = {
  /** url: of all clients that name none. */
  open({ url, clients }) {
    for (const client of clients) open({ url, ...client });
  },

  /** Say when every connection has received this notification. */
  expect({ number }) {
    awaited = number;
    if (all((each) => each.numbers.has(number))) tell("all have", { number });
  },

  dump() {
    const journals = Object.fromEntries(
      [...connections].map(([name, { received, events, state }]) => [name, { received, events, state: state() }]),
    );
    tell("journals", { journals });
  },
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const { command, ...rest } = JSON.parse(line);
    commands[command](rest);
  })
  .on("close", () => process.exit());
