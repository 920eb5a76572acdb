// A TCP load balancer that fails on command: node entrances.mjs '[[PORT, …], …]' prints {"ports": […]}, a port to connect to
// for each list. An entrance connects to the first port of its list that answers. A line {"entrance": 0, "open": false} on the
// standard input closes all connections through that entrance on both sides and refuses new ones; true accepts them again.
// It is answered by the same line, with "line": its number.

import { once } from "node:events";
import { connect, createServer } from "node:net";
import { createInterface } from "node:readline";

async function reach(ports) {
  for (const port of ports) {
    const server = connect({ port, host: "127.0.0.1", noDelay: true });
    try {
      await once(server, "connect");
      return server;
    } catch {
      server.destroy(); // nothing listens there
    }
  }
}

class Entrance {
  open = true;
  #links = new Set();

  constructor(ports) {
    this.listener = createServer({ noDelay: true, pauseOnConnect: true }, (client) => this.#link(client, ports));
  }

  async #link(client, ports) {
    client.on("error", () => client.destroy());
    const server = this.open ? await reach(ports) : undefined;
    if (!server || !this.open) {
      server?.destroy();
      client.resetAndDestroy();
      return;
    }
    const link = [client, server];
    this.#links.add(link);
    this.#carry(client, server, link);
    this.#carry(server, client, link);
    client.resume();
  }

  #carry(from, to, link) {
    from.on("data", (chunk) => to.write(chunk));
    from.on("error", () => from.destroy());
    from.on("close", () => {
      to.destroySoon();
      this.#links.delete(link);
    });
  }

  cut() {
    for (const end of [...this.#links].flat()) end.resetAndDestroy();
  }
}

const entrances = JSON.parse(process.argv[2]).map((ports) => new Entrance(ports));
for (const { listener } of entrances) {
  listener.listen(0, "127.0.0.1", 1024);
  await once(listener, "listening");
}
console.log(JSON.stringify({ ports: entrances.map(({ listener }) => listener.address().port) }));

let line = 0;
createInterface({ input: process.stdin })
  .on("line", (text) => {
    const { entrance, open } = JSON.parse(text);
    entrances[entrance].open = open;
    if (!open) entrances[entrance].cut();
    line += 1;
    console.log(JSON.stringify({ entrance, open, line }));
  })
  .on("close", () => process.exit());
