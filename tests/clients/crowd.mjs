// Many official clients in one process: node crowd.mjs URL [TRANSPORT], then {user id: token} as one line on the standard
// input. With a transport they take that one only. Prints what happens to them all together, as lines of JSON.

import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const [url, transport] = process.argv.slice(2);
const options = transport ? { transports: [transport] } : {};
const tell = (event, value) => console.log(JSON.stringify({ event, value }));

createInterface({ input: process.stdin }).once("line", (line) => {
  const tokens = Object.entries(JSON.parse(line));
  const authenticated = new Set();
  const upgraded = new Set();
  const received = {};
  let total = 0;

  for (const [userId, token] of tokens) {
    received[userId] = 0;
    const socket = io(url, { ...options, forceNew: true, auth: { token, userId } });
    socket.io.on("open", () => {
      socket.io.engine.on("upgrade", () => {
        upgraded.add(userId);
        if (upgraded.size === tokens.length) tell("all upgraded", upgraded.size);
      });
    });
    socket.on("auth_success", () => {
      authenticated.add(userId);
      if (authenticated.size === tokens.length) tell("all authenticated", authenticated.size);
    });
    socket.on("notification", () => {
      received[userId] += 1;
      total += 1;
      if (total === tokens.length) tell("all received", received);
    });
    for (const event of ["connect_error", "auth_error", "disconnect"]) {
      socket.on(event, (what) => tell("trouble", { event, what: String(what?.message ?? what) }));
    }
  }
});
