// A network with latency before a server: node latency.mjs PORT DELAY_MS WEBSOCKET_DELAY_MS prints {"port": …} to connect
// to instead. Everything arrives so much later, in both directions and in order.

import { connect, createServer } from "node:net";

const [port, delayMs, websocketDelayMs] = process.argv.slice(2).map(Number);

function carry(from, to, delay) {
  const later = (act) => setTimeout(act, delay.ms);
  from.on("data", (chunk) => {
    if (/^upgrade: websocket/im.test(chunk.subarray(0, 2000))) delay.ms = websocketDelayMs;
    later(() => to.destroyed || to.write(chunk));
  });
  from.on("end", () => later(() => to.end()));
  from.on("error", () => later(() => to.destroy()));
}

const network = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
  const server = connect({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
  const delay = { ms: delayMs };
  carry(client, server, delay);
  carry(server, client, delay);
});
network.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: network.address().port })));
process.stdin.resume().on("end", () => process.exit());
