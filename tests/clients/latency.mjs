// A network with latency before a server: node latency.mjs PORT DELAY_MS prints {"port": …} to connect to instead.
// Everything arrives so much later, in both directions and in order.

import { connect, createServer } from "node:net";

const [port, delayMs] = process.argv.slice(2).map(Number);

function carry(from, to) {
  const later = (act) => setTimeout(act, delayMs);
  from.on("data", (chunk) => later(() => to.destroyed || to.write(chunk)));
  from.on("end", () => later(() => to.end()));
  from.on("error", () => later(() => to.destroy()));
}

const network = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
  const server = connect({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
  carry(client, server);
  carry(server, client);
});
network.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: network.address().port })));
process.stdin.resume().on("end", () => process.exit());
