// The server processes under test and their clients.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { io } from "socket.io-client";
import msgpack from "socket.io-msgpack-parser";
import { until, within } from "./wait.js";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const target = resolve(root, process.env.CARGO_TARGET_DIR ?? "target");

/** The path of a program that was built, or fails with what builds it. */
export function program(name) {
  const path = resolve(target, "debug", name);
  if (!existsSync(path)) throw new Error(`${path} is not built: run scripts/test, or cargo build --workspace --bins --examples`);
  return path;
}

export const example = (name) => program(`examples/${name}`);

/** One server process with one node or more; collects what it says. */
export class Process {
  constructor(args) {
    this.events = [];
    this.errors = "";
    this.child = spawn(example("e2e-server"), args, { stdio: ["pipe", "pipe", "pipe"] });
    this.exited = new Promise((done) => this.child.once("exit", (code) => done(code)));
    this.child.stderr.on("data", (data) => (this.errors += data));
    this.child.stdin.on("error", () => {});
    createInterface({ input: this.child.stdout }).on("line", (line) => {
      const message = JSON.parse(line);
      if (message.ready) this.nodes = message.ready;
      else if (message.event) this.events.push({ ...message, time: performance.now() });
    });
  }

  async ready() {
    const exit = this.exited.then((code) => {
      if (!this.nodes) throw new Error(`the server ended with ${code}: ${this.errors}`);
    });
    await Promise.race([until("the server is ready", () => this.nodes, 15_000), exit.then(() => new Promise(() => {}))]);
    return this;
  }

  /** Ends it as a crash does. */
  async kill() {
    this.child.kill("SIGKILL");
    await this.exited;
  }

  /** Ends it in order: it says goodbye to the other nodes. Returns its exit code. */
  async stop() {
    this.child.stdin.end();
    return within("the server stops", this.exited, 15_000).catch(async (error) => {
      await this.kill();
      throw error;
    });
  }

  /** Resident memory in KiB, now and at its highest. */
  memory() {
    const status = readFileSync(`/proc/${this.child.pid}/status`, "utf8");
    const read = (name) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)[1]);
    return { now: read("VmRSS"), peak: read("VmHWM") };
  }
}

/** Three nodes that know each other: three processes on a broker, or one on the bus inside it. */
export class Cluster {
  static async start(bus, { parser = "common", nodes = 3, options = [] } = {}) {
    const cluster = new Cluster();
    cluster.parser = parser;
    cluster.clients = [];
    const inOne = bus.startsWith("memory:");
    const count = inOne ? 1 : nodes;
    const args = [bus, "--parser", parser, "--nodes", String(inOne ? nodes : 1), ...options];
    cluster.processes = Array.from({ length: count }, () => new Process(args));
    await Promise.all(cluster.processes.map((process) => process.ready()));
    cluster.nodes = cluster.processes.flatMap((process) => process.nodes.map((node) => ({ ...node, process })));
    return cluster;
  }

  /** All events of one node, as it told them. */
  events(node, kind) {
    const all = this.nodes[node].process.events.filter((event) => event.at === this.nodes[node].node);
    return kind ? all.filter((event) => event.event === kind) : all;
  }

  /** A connected client of node `index`, which keeps every event it gets in `seen`. */
  async client(index, { transport = "websocket", namespace = "/", ...options } = {}) {
    const client = this.open(index, { transport, namespace, ...options });
    await within(`a client connects to node ${index} by ${transport}`, new Promise((resolve, reject) => {
      client.once("connect", resolve);
      client.once("connect_error", reject);
    }));
    return client;
  }

  /** The same without waiting for the connection. */
  open(index, { transport = "websocket", namespace = "/", ...options } = {}) {
    const client = io(`http://127.0.0.1:${this.nodes[index].port}${namespace}`, {
      transports: [transport],
      forceNew: true,
      reconnection: false,
      ...(this.parser === "msgpack" ? { parser: msgpack } : {}),
      ...options,
    });
    client.node = index;
    client.seen = [];
    client.onAny((event, ...args) => {
      const answer = typeof args.at(-1) === "function" ? args.pop() : null;
      client.seen.push([event, ...args]);
      answer?.(client.reply ?? null);
    });
    this.clients.push(client);
    return client;
  }

  dropClients() {
    for (const client of this.clients.splice(0)) client.disconnect();
  }

  async stop() {
    this.dropClients();
    return Promise.all(this.processes.map((process) => process.stop()));
  }
}

/** Asks the server of `client` to do something; gives the result or throws what the server says. */
export async function ask(client, operation, argument = {}, ms = 15_000) {
  const { ok, error } = await client.timeout(ms).emitWithAck(operation, argument);
  if (error !== null && error !== undefined) throw new Error(error);
  return ok;
}
