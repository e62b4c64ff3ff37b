// What happens when another server takes the broker's place, judged by a ledger of every message.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { Broker } from "./lib/broker.js";
import { Ledger } from "./lib/ledger.js";
import { Cluster, ask } from "./lib/servers.js";
import { sleep, until } from "./lib/wait.js";

/** The servers notice a death after a second or more, and agree on a successor. */
const FAIL_OVER_MS = 30_000;

let broker;
let cluster;
afterEach(async () => {
  await cluster?.stop();
  await broker?.stop();
  broker = cluster = null;
});

for (const scheme of ["redis+sentinel", "redis+cluster"]) {
  test(`${scheme}: a server killed, and one replaced on request, under 500 messages a second`, async (t) => {
    broker = await Broker.start(scheme);
    cluster = await Cluster.start(broker.url);
    const client = await cluster.client(0);
    await until("all three know each other", async () => (await ask(client, "cluster", null)).nodes.length === 2);
    // Node 2 publishes nothing: it must hear again all the same.
    const ledger = await Ledger.open(cluster, [0, 1]);
    ledger.start(500);
    await ledger.deliveredEverywhereAfter(performance.now());
    const recoveries = [];
    for (const fault of ["kill", "failOver", "kill"]) {
      await broker[fault]();
      recoveries.push(Math.round(await ledger.deliveredEverywhereAfter(performance.now(), FAIL_OVER_MS)));
      // Back in reserve, so that there can be a next time.
      await broker.restart();
      // Nodes may move one after the other while both servers are alive; the next fault is for all.
      await sleep(3000);
      await ledger.deliveredEverywhereAfter(performance.now(), FAIL_OVER_MS);
    }
    const { sent, refused, lost, reported, duplicates, reordered, longestLocalSilenceMs } = await ledger.close();
    t.diagnostic(`${scheme}: killed, replaced, killed: delivery back after ${recoveries.join(", ")} ms; ${sent} sent, ${refused} refused, ` +
      `${lost} lost, ${reported} reported, ${duplicates} duplicates, ${reordered} reordered; longest silence of a local socket ${Math.round(longestLocalSilenceMs)} ms`);
    cluster.nodes.forEach((_, node) => assert.deepEqual(cluster.events(node, "left"), [], "no node is taken for dead"));
    assert.ok(longestLocalSilenceMs <= 1000, `a local socket heard nothing for ${longestLocalSilenceMs} ms`);
  });
}
