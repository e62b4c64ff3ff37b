// What happens when a broker or a node fails, judged by a ledger of every message.
import assert from "node:assert/strict";
import { afterEach, describe, test } from "node:test";
import { Broker } from "./lib/broker.js";
import { buses } from "./lib/buses.js";
import { Ledger } from "./lib/ledger.js";
import { Cluster, Process, ask } from "./lib/servers.js";
import { sleep, until, within } from "./lib/wait.js";

/** The deadline of a publish and of a query in the cluster's default settings. */
const DEADLINE_MS = 5000;
/** What the way between this process and the server may add to the time of a query, on a busy machine. */
const SLACK_MS = 250;

let broker;
let cluster;
async function threeNodes(scheme, ...options) {
  broker = await Broker.start(scheme);
  cluster = await Cluster.start(broker.url, { options });
  const client = await cluster.client(0);
  await until("all three know each other", async () => (await ask(client, "cluster", null)).nodes.length === 2);
  return client;
}
afterEach(async () => {
  await cluster?.stop();
  await broker?.stop();
  broker = cluster = null;
});

/** Asks for all sockets of the cluster again and again, from a client on `node`; `stop` gives how that went. */
async function keepAsking(node) {
  const client = await cluster.client(node);
  const asked = { answered: 0, refused: 0, slowest: 0 };
  let ended = false;
  const loop = (async () => {
    while (!ended) {
      const began = performance.now();
      await ask(client, "sockets").then(() => (asked.answered += 1), () => (asked.refused += 1));
      asked.slowest = Math.max(asked.slowest, performance.now() - began);
      await sleep(50);
    }
  })();
  return async () => {
    ended = true;
    await loop;
    return asked;
  };
}

/** No call outlasted its deadline, and the sockets of a node heard each other throughout. */
function inTime(totals, queries) {
  assert.ok(totals.slowestCallMs <= DEADLINE_MS + SLACK_MS, `slowest emit ${totals.slowestCallMs} ms`);
  assert.ok(queries.slowest <= DEADLINE_MS + SLACK_MS, `slowest query ${queries.slowest} ms`);
  assert.ok(queries.answered > 0, "queries were answered");
  assert.ok(totals.longestLocalSilenceMs <= 1000, `a local socket heard nothing for ${totals.longestLocalSilenceMs} ms`);
}

/** One line of numbers for whoever reads the output. */
function summary(t, what, { sent, refused, lost, reported, duplicates, reordered, slowestCallMs, longestLocalSilenceMs }, queries) {
  t.diagnostic(`${what}; ${sent} sent, ${refused} refused, ${lost} lost, ${reported} reported, ${duplicates} duplicates, ${reordered} reordered; ` +
    `slowest emit ${Math.round(slowestCallMs)} ms, slowest of ${queries.answered + queries.refused} queries ${Math.round(queries.slowest)} ms; ` +
    `longest silence of a local socket ${Math.round(longestLocalSilenceMs)} ms`);
}

const noDeaths = () => cluster.nodes.forEach((_, node) => assert.deepEqual(cluster.events(node, "left"), [], "no node is taken for dead"));

for (const bus of buses) {
  describe(bus.scheme, () => {
    restarts(bus);
    // What is given up, and what a frozen broker does to the cluster, is up to the core.
    if (bus.scheme === "redis") longOutages(bus);
  });
}

function restarts({ scheme, keeps, restarts }) {
  const RESTARTS = Number(process.env.E2E_RESTARTS ?? restarts);
  test(`the broker killed and restarted ${RESTARTS} times under 1,000 messages a second`, async (t) => {
    await threeNodes(scheme);
    // Node 2 publishes nothing: it must hear again all the same.
    const ledger = await Ledger.open(cluster, [0, 1]);
    ledger.start(1000);
    await ledger.deliveredEverywhereAfter(performance.now());
    const stopAsking = await keepAsking(2);
    const before = cluster.processes.map((process) => process.memory().now);
    const recoveries = [];
    for (let round = 0; round < RESTARTS; round += 1) {
      await broker.kill();
      const killed = performance.now();
      // Mostly short outages, as restarts are; every fifth is long enough for the waits between attempts to have grown.
      await sleep(round % 5 === 4 ? 4000 : 50 + ((round * 137) % 950));
      const ready = await broker.restart();
      // A node that has waited for so long may wait for an eighth of that once more: a broker that takes long to start is
      // found later. What counts is the rest.
      const wait = (ready - killed) / 8;
      recoveries.push(Math.max(0, (await ledger.deliveredEverywhereAfter(ready, 10_000 + wait)) - wait));
      await sleep(500 + ((round * 211) % 700));
    }
    const queries = await stopAsking();
    const totals = await ledger.close();
    recoveries.sort((a, b) => a - b);
    const median = recoveries[Math.floor(recoveries.length / 2)];
    const worst = recoveries.at(-1);
    const growth = Math.max(...cluster.processes.map((process, i) => process.memory().peak - before[i]));
    summary(t, `${scheme}: ${RESTARTS} restarts: delivery back ${Math.round(median)} ms (median), ${Math.round(worst)} ms (worst) after the waits between attempts, memory +${growth} KiB at most`, totals, queries);
    noDeaths();
    assert.ok(totals.sent > 1000 * RESTARTS, "the load was there");
    if (keeps) assert.equal(totals.lost, 0, "the broker's log gives back what a node missed");
    else assert.ok(totals.lost > 0, "the outages hit messages on their way, so that the ledger proves something");
    assert.ok(median <= 1000, `median ${median} ms`);
    assert.ok(worst <= 2000, `worst ${worst} ms`);
    inTime(totals, queries);
    assert.ok(growth <= 64 * 1024, `memory grew by ${growth} KiB`);
  });
}

function longOutages({ scheme }) {
  test("the broker away for longer than a lane keeps trying", async (t) => {
    await threeNodes(scheme, "--retry-for-ms", "500");
    const ledger = await Ledger.open(cluster, [0, 1]);
    ledger.start(1000);
    const stopAsking = await keepAsking(2);
    // Which frames a kill catches on their way is chance; three make it certain enough that it catches some.
    for (let round = 0; round < 3; round += 1) {
      await ledger.deliveredEverywhereAfter(performance.now());
      await broker.kill();
      await sleep(1500);
      await broker.restart();
    }
    await ledger.deliveredEverywhereAfter(performance.now());
    const queries = await stopAsking();
    const totals = await ledger.close();
    summary(t, `${scheme}: given up`, totals, queries);
    noDeaths();
    assert.ok(totals.lost > 0, "something was given up");
  });

  test("the broker frozen for 10 s", async (t) => {
    await threeNodes(scheme);
    const ledger = await Ledger.open(cluster, [0, 1]);
    ledger.start(300);
    await ledger.deliveredEverywhereAfter(performance.now());
    const stopAsking = await keepAsking(2);
    await broker.freeze();
    await sleep(10_000);
    await broker.thaw();
    const back = await ledger.deliveredEverywhereAfter(performance.now());
    // Longer than the silence after which a node counts as dead: a wrong verdict would have come by then.
    await sleep(7500);
    const queries = await stopAsking();
    const totals = await ledger.close();
    summary(t, `${scheme}: frozen for 10 s: delivery back after ${Math.round(back)} ms`, totals, queries);
    noDeaths();
    inTime(totals, queries);
  });
}

test("a node killed in the middle of everything is counted out in time", async (t) => {
  const client = await threeNodes("redis");
  const dying = cluster.nodes[2];
  const mute = (await cluster.client(2)).offAny();
  client.reply = "yes";
  await until("its socket is known", async () => (await ask(client, "sockets")).length === 2);
  const acks = ask(client, "emit-ack", { target: { timeout_ms: 60_000 }, event: "question", data: 1 });
  await until("the question is there", () => client.seen.some(([event]) => event === "question"));
  await sleep(200);

  await dying.process.kill();
  const killed = performance.now();
  const query = ask(client, "sockets").then(() => "an answer", (error) => error.message);
  const left = await until("both others count it out", () => {
    const events = [0, 1].map((node) => cluster.events(node, "left")[0]);
    return events.every(Boolean) && events;
  }, 9000);
  for (const { details, time } of left) {
    assert.deepEqual(details, { node: dying.node, reason: "Dead" });
    assert.ok(time - killed <= 7500, `counted out after ${time - killed} ms`);
  }
  const problem = await within("the query ends", query, 500);
  assert.match(problem, new RegExp(dying.node), "the query names the node that did not answer");
  const answers = await within("the acknowledged broadcast ends", acks, 500);
  assert.deepEqual(answers.filter(([, , error]) => error === null), [[client.id, "yes", null]]);
  assert.ok(cluster.events(0, "incomplete").some(({ details }) => details.missing.includes(dying.node)), "an event names it");
  assert.deepEqual((await ask(client, "sockets")).map(([id]) => id), [client.id]);
  t.diagnostic(`a node killed: counted out after ${left.map(({ time }) => Math.round(time - killed)).join(" and ")} ms`);
  mute.disconnect();
  cluster.processes.length = 2;
});

for (const [what, url, expected] of [
  ["an unreachable host", "redis://user:s3cret@127.0.0.1:1", /redis/],
  ["an unknown option", "redis://127.0.0.1:1?prefx=s3cret", /unknown option "prefx".*did you mean "prefix"/],
  ["an unknown scheme", "kafka://s3cret@127.0.0.1", /unknown scheme "kafka", expected one of .*redis/],
  ["no URL at all", "s3cret", /not a broker URL/],
]) {
  test(`${what} ends the start with one line that says what to do`, async () => {
    await refused(url, expected);
  });
}

test("a wrong password ends the start with one line that says so", async () => {
  broker = await Broker.start("redis", { password: "right" });
  await refused(broker.url.replace("right", "s3cret"), /password|authenticat/i);
});

async function refused(url, expected) {
  const server = new Process([url]);
  assert.equal(await within("the server gives up", server.exited, 15_000), 1);
  const lines = server.errors.trim().split("\n");
  assert.equal(lines.length, 1, server.errors);
  assert.match(lines[0], expected);
  assert.doesNotMatch(lines[0], /s3cret/);
}
