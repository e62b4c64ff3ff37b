// A server with one of the Node.js adapters, told what to do by lines of JSON as `../src/child.rs` describes them.
import { createHistogram } from "node:perf_hooks";
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import { createAdapter, createShardedAdapter } from "@socket.io/redis-adapter";
import { createAdapter as createStreamsAdapter } from "@socket.io/redis-streams-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const role = JSON.parse(process.argv[2]);
const adapter = role.kind.Node.adapter;
const SILENCE_MS = 1500;

const now = () => process.hrtime.bigint();
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const answer = (value) => process.stdout.write(JSON.stringify(value) + "\n");

// What the sockets have heard.
const heard = { count: 0, every: 1, latency: createHistogram() };

function hear(packets) {
  if (heard.count++ % heard.every !== 0) return;
  const [text, attachment] = packets;
  const made =
    attachment === undefined
      ? BigInt("0x" + text.slice(text.indexOf('"m","') + 5, text.indexOf('"m","') + 21))
      : attachment.readBigUInt64LE(0);
  const age = now() - made;
  if (age > 0n) heard.latency.record(age);
}

// A socket without a network, as the adapters see it.
function addSocket(io, number) {
  const socket = {
    id: `bench${number}`,
    handshake: {},
    rooms: new Set([`bench${number}`]),
    data: {},
    acks: { set: (_id, ack) => setImmediate(ack, "ok") },
    client: { writeToEngine: hear },
  };
  const namespace = io.of("/");
  namespace.sockets.set(socket.id, socket);
  namespace.adapter.addAll(socket.id, new Set([socket.id]));
}

// The command that the last emit sent, to await it: the adapters themselves do not.
let sending;
function watch(client) {
  for (const name of ["publish", "sPublish", "xAdd", "sendCommand"]) {
    const original = client[name].bind(client);
    client[name] = (...args) => (sending = original(...args));
  }
  return client;
}

async function connect() {
  const client = createClient({ url: role.url, RESP: 2 });
  client.on("error", (error) => answer({ Failed: String(error) }));
  return client.connect();
}

async function server() {
  const io = new Server();
  const client = await connect();
  if (adapter === "Streams") {
    io.adapter(createStreamsAdapter(watch(client)));
  } else {
    const subscriber = await connect();
    const create = adapter === "Sharded" ? createShardedAdapter : createAdapter;
    io.adapter(create(watch(client), subscriber));
  }
  return io;
}

function message({ bytes, binary }) {
  if (binary) {
    const message = Buffer.alloc(bytes, "x");
    message.writeBigUInt64LE(now());
    return message;
  }
  const stamp = now().toString(16).padStart(16, "0");
  return stamp + "x".repeat(bytes - '["m",""]'.length - stamp.length);
}

function used() {
  const { user, system } = process.cpuUsage();
  return { cpu_nanos: (user + system) * 1000, allocations: 0, allocated: 0 };
}

function since(before) {
  return { ...before, cpu_nanos: used().cpu_nanos - before.cpu_nanos };
}

async function publish(io, load) {
  const [[kind, options]] = Object.entries(load);
  const before = used();
  const started = now();
  const tally = { sent: 0, failed: 0, error: null };
  const send = async () => {
    try {
      sending = undefined;
      io.emit("m", message(options.shape));
      await sending;
      tally.sent++;
    } catch (error) {
      tally.failed++;
      tally.error ??= String(error);
    }
  };
  const tasks = [];
  const end = started + BigInt(options.millis ?? 0) * 1_000_000n;
  if (kind === "Closed") {
    const caller = async () => {
      while (now() < end) await send();
    };
    for (let i = 0; i < options.publishers; i++) tasks.push(caller());
  } else if (kind === "Open") {
    const total = (options.rate * options.millis) / 1000;
    while (tasks.length < total) {
      const due = (Number(now() - started) * options.rate) / 1e9;
      while (tasks.length < Math.min(due, total)) tasks.push(send());
      await new Promise(setImmediate);
    }
  } else {
    for (let i = 0; i < options.count; i++) tasks.push(send());
  }
  await Promise.all(tasks);
  return { Published: { ...tally, started: Number(started), used: since(before), reported: 0 } };
}

async function wait(expect, before) {
  let [count, last, quiet] = [0, now(), Date.now()];
  for (;;) {
    if (heard.count !== count) [count, last, quiet] = [heard.count, now(), Date.now()];
    if (count >= expect || Date.now() - quiet > SILENCE_MS) break;
    await sleep(1);
  }
  const latency = percentiles(heard.latency);
  return { Heard: { count, last: Number(last), latency, used: since(before), reported: 0 } };
}

function percentiles(histogram) {
  const at = (percent) => (histogram.count ? histogram.percentile(percent) / 1e3 : 0);
  return { p50: at(50), p99: at(99), p999: at(99.9) };
}

async function request(io, { ack, in_flight, millis }) {
  const sockets = role.nodes * role.sockets;
  const took = createHistogram();
  const started = now();
  const end = started + BigInt(millis) * 1_000_000n;
  let [done, incomplete] = [0, 0];
  const caller = async () => {
    while (now() < end) {
      const asked = now();
      const answers = ack
        ? io.timeout(5000).emitWithAck("m", message({ bytes: 64, binary: false }))
        : io.fetchSockets();
      const count = await answers.then((all) => all.length).catch(() => -1);
      done++;
      if (count !== sockets) incomplete++;
      took.record(now() - asked);
    }
  };
  await Promise.all(Array.from({ length: in_flight }, caller));
  const latency = percentiles(took);
  return { Requested: { done, incomplete, nanos: Number(now() - started), latency } };
}

function memory() {
  const status = readFileSync("/proc/self/status", "utf8");
  const bytes = (name) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)[1]) * 1024;
  return { Memory: { now: bytes("VmRSS"), peak: bytes("VmHWM") } };
}

const servers = [];
for (let number = 0; number < role.nodes; number++) {
  const io = await server();
  for (let socket = 0; socket < role.sockets; socket++) addSocket(io, `${number}-${socket}`);
  servers.push(io);
}
// The adapters do not tell when they are subscribed.
await sleep(300);
answer("Ready");

let before = used();
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.Publish) answer(await publish(servers[0], command.Publish));
  else if (command.Listen) {
    Object.assign(heard, { count: 0, every: command.Listen.every });
    heard.latency.reset();
    before = used();
    answer("Ready");
  } else if (command.Heard) answer(await wait(command.Heard.expect, before));
  else if (command.Request) answer(await request(servers[0], command.Request));
  else if (command === "Memory") answer(memory());
  else answer({ Failed: `not supported: ${line}` });
}
process.exit(0);
