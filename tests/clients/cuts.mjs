// A network before a server that tears: node cuts.mjs PORT prints {"port": …} to connect to instead. Every line on the
// standard input cuts all connections at once: the clients get a reset, and lose what was on its way to them. Every other
// server's end learns nothing of it, as behind a router that was switched off: it stays half-open.

import { connect, createServer } from "node:net";
import { createInterface } from "node:readline";

const [port] = process.argv.slice(2).map(Number);
const open = new Map(); // the client's end -> the server's end
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
    const torn = [...open];
    open.clear();
    torn.forEach(([client, server], index) => {
      client.resetAndDestroy();
      if ((index + cuts) % 2 === 0) server.destroy();
    });
    cuts += 1;
    console.log(JSON.stringify({ cut: cuts, connections: torn.length }));
  })
  .on("close", () => process.exit());

network.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: network.address().port })));
