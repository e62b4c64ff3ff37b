// The example that takes any broker: the same program, and only the URL differs.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { io } from "socket.io-client";
import { Broker } from "./lib/broker.js";
import { buses } from "./lib/buses.js";
import { example } from "./lib/servers.js";
import { until, within } from "./lib/wait.js";

class Server {
  constructor(url) {
    this.child = spawn(example("swap-backend"), [url], { stdio: ["ignore", "pipe", "inherit"] });
    this.exited = new Promise((resolve) => this.child.once("exit", resolve));
    this.address = new Promise((resolve, reject) => {
      createInterface({ input: this.child.stdout }).once("line", resolve);
      this.exited.then((code) => reject(new Error(`the server ended with ${code}`)));
    });
  }

  async client() {
    this.socket = io(await within("the server starts", this.address, 15_000), { transports: ["websocket"], reconnection: false });
    this.said = [];
    this.socket.on("said", (text) => this.said.push(text));
    this.socket.on("problem", (text) => console.error(`a server says: ${text}`));
    await within("a client connects", new Promise((resolve) => this.socket.once("connect", resolve)));
    return this.socket;
  }
}

for (const { scheme } of buses) {
  test(`two servers of one program over ${scheme} are one`, async () => {
    const broker = await Broker.start(scheme);
    const servers = [new Server(broker.url), new Server(broker.url)];
    try {
      const [one, two] = [await servers[0].client(), await servers[1].client()];
      await until("each finds the client of the other", async () => {
        const found = await Promise.all([one, two].map((client) => client.timeout(10_000).emitWithAck("who")));
        return found[0].includes(two.id) && found[1].includes(one.id);
      });
      one.emit("say", "hello");
      await until("a message crosses", () => servers[1].said.length > 0);
      assert.deepEqual(servers[1].said, ["hello"]);
      one.disconnect();
      two.disconnect();
      for (const { child } of servers) child.kill("SIGINT");
      for (const { exited } of servers) assert.equal(await within("a server stops", exited, 15_000), 0);
    } finally {
      for (const { child } of servers) child.kill("SIGKILL");
      await broker.stop();
    }
  });
}
