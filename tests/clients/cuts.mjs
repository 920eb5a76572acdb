// A network that fails on command: node cuts.mjs PORT prints {"port": …} to connect to instead of PORT. Each line on the
// standard input ends all connections at once: the clients get a reset and lose what was on its way to them. Half of the
// server's ends are not closed and stay half-open, as behind a router that was switched off.

import { connect, createServer } from "node:net";
import { createInterface } from "node:readline";

const [port] = process.argv.slice(2).map(Number);
const open = new Map(); // the client's socket -> the server's socket
let cuts = 0;

const network = createServer({ noDelay: true }, (client) => {
  const server = connect({ port, host: "127.0.0.1", noDelay: true });
  open.set(client, server);
  client.on("data", (chunk) => server.write(chunk));
  server.on("data", (chunk) => client.destroyed || client.write(chunk));
  client.on("close", () => {
    if (open.delete(client)) server.end();
  });
  server.on("close", () => client.destroy());
  for (const end of [client, server]) end.on("error", () => end.destroy());
});

createInterface({ input: process.stdin })
  .on("line", () => {
    const ended = [...open];
    open.clear();
    ended.forEach(([client, server], index) => {
      client.resetAndDestroy();
      if ((index + cuts) % 2 === 0) server.destroy();
    });
    cuts += 1;
    console.log(JSON.stringify({ cut: cuts, connections: ended.length }));
  })
  .on("close", () => process.exit());

network.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: network.address().port })));
