// The ledger: what was published, what each node took, what each receiver got, and what the cluster says was lost.
import assert from "node:assert/strict";
import { sleep, until } from "./wait.js";

/** Publishes numbered messages at a rate, and keeps the outcome of each. */
class Publisher {
  constructor(client, id) {
    Object.assign(this, { client, id, node: client.node, sentAt: [], error: [], micros: [], answered: 0 });
  }

  /** Sends `rate` messages a second until `stop`. Late timers catch up, so that the rate holds. */
  start(rate) {
    const began = performance.now();
    const already = this.sentAt.length;
    this.timer = setInterval(() => {
      const due = already + Math.floor(((performance.now() - began) * rate) / 1000);
      while (this.sentAt.length < due) this.send();
    }, 5);
  }

  send() {
    const number = this.sentAt.push(performance.now()) - 1;
    this.client.emit("publish", { by: this.id, n: number }, ({ error, micros }) => {
      this.error[number] = error;
      this.micros[number] = micros;
      this.answered += 1;
    });
  }

  async stop() {
    clearInterval(this.timer);
    await until(`every publish of publisher ${this.id} is answered`, () => this.answered === this.sentAt.length, 15_000);
  }
}

/** Keeps what it receives of each publisher, in the order of arrival. */
class Receiver {
  constructor(client, publishers) {
    this.node = client.node;
    this.got = publishers.map(() => []);
    this.at = publishers.map(() => []);
    client.on("numbered", ({ by, n }) => {
      this.got[by].push(n);
      this.at[by].push(performance.now());
    });
  }
}

export class Ledger {
  /** Publishers on the nodes `publishing`, and one receiver on every node. */
  static async open(cluster, publishing) {
    const ledger = new Ledger();
    ledger.cluster = cluster;
    const bare = async (node) => (await cluster.client(node)).offAny();
    ledger.publishers = [];
    for (const [id, node] of publishing.entries()) ledger.publishers.push(new Publisher(await bare(node), id));
    ledger.receivers = [];
    for (const node of cluster.nodes.keys()) ledger.receivers.push(new Receiver(await bare(node), ledger.publishers));
    return ledger;
  }

  start(rate) {
    for (const publisher of this.publishers) publisher.start(rate / this.publishers.length);
  }

  *pairs() {
    for (const receiver of this.receivers) for (const publisher of this.publishers) yield [publisher, receiver];
  }

  /**
   * Waits until every node gets messages of every other that were published after `since`; returns how long after
   * `since` the last of them did.
   */
  async deliveredEverywhereAfter(since, ms = 10_000) {
    const first = ([publisher, receiver]) => {
      const { got, at } = { got: receiver.got[publisher.id], at: receiver.at[publisher.id] };
      let i = got.length;
      let found = null;
      while (i > 0 && at[i - 1] >= since) {
        i -= 1;
        if (publisher.sentAt[got[i]] >= since) found = at[i];
      }
      return found;
    };
    const remote = [...this.pairs()].filter(([publisher, receiver]) => publisher.node !== receiver.node);
    await until("every node gets messages of every other again", () => remote.every(first), ms);
    return Math.max(...remote.map(first)) - since;
  }

  /** Ends the publishing, waits for the last reports and judges; returns the totals. */
  async close() {
    for (const publisher of this.publishers) await publisher.stop();
    // The last message of each must be there (the link is up), so that what is missing before it is missing for good.
    for (const publisher of this.publishers) {
      const last = await until("a last message is accepted", async () => {
        publisher.send();
        await until("it is answered", () => publisher.answered === publisher.sentAt.length);
        return publisher.error.at(-1) === null && publisher.sentAt.length - 1;
      });
      await until("the last message arrives everywhere", () => this.receivers.every(({ got }) => got[publisher.id].at(-1) === last));
    }
    // Gaps are told at the latest with the heartbeat after them.
    const settled = () => [...this.pairs()].every((pair) => this.lost(pair) === this.reported(pair));
    const end = performance.now() + 6000;
    while (!settled() && performance.now() < end) await sleep(20);
    return this.judge();
  }

  /** The verdict over what was written down: fails, or returns the totals. */
  judge() {
    const totals = { sent: 0, refused: 0, lost: 0, reported: 0, duplicates: 0, reordered: 0, resurrected: 0, slowestCallMs: 0, longestLocalSilenceMs: 0 };
    for (const { sentAt, error, micros } of this.publishers) {
      totals.sent += sentAt.length;
      totals.refused += error.filter((text) => text !== null).length;
      totals.slowestCallMs = micros.reduce((max, one) => Math.max(max, one / 1000), totals.slowestCallMs);
    }
    for (const [publisher, receiver] of this.pairs()) {
      const got = receiver.got[publisher.id];
      totals.duplicates += got.length - new Set(got).size;
      totals.reordered += got.filter((number, i) => i > 0 && number < got[i - 1]).length;
      if (publisher.node === receiver.node) {
        assert.equal(got.length, publisher.sentAt.length, "a local socket gets everything, whatever the broker does");
        const at = receiver.at[publisher.id];
        totals.longestLocalSilenceMs = at.reduce((max, one, i) => (i === 0 ? max : Math.max(max, one - at[i - 1])), totals.longestLocalSilenceMs);
      } else {
        totals.lost += this.lost([publisher, receiver]);
        totals.reported += this.reported([publisher, receiver]);
        totals.resurrected += got.filter((number) => publisher.error[number] !== null).length;
      }
    }
    for (const pair of this.pairs()) {
      const [publisher, receiver] = pair;
      assert.equal(this.reported(pair), this.lost(pair), `messages of node ${publisher.node} lost and reported at node ${receiver.node}: ${JSON.stringify(totals)}`);
    }
    assert.equal(totals.duplicates, 0, "duplicates");
    assert.equal(totals.reordered, 0, "reordered messages of one publisher");
    assert.equal(totals.resurrected, 0, "refused messages that arrived all the same");
    return totals;
  }

  /** Messages that the publisher's node took and the receiver never got. */
  lost([publisher, receiver]) {
    const got = new Set(receiver.got[publisher.id]);
    return publisher.error.filter((error, number) => error === null && !got.has(number)).length;
  }

  /** What the receiver's node says it lost of the publisher's, and the publisher's node says it never sent. */
  reported([publisher, receiver]) {
    if (publisher.node === receiver.node) return 0;
    const origin = this.cluster.nodes[publisher.node].node;
    const sum = (events) => events.reduce((total, { details }) => total + details.count, 0);
    const gaps = this.cluster.events(receiver.node, "gap").filter(({ details }) => details.origin === origin && details.namespace === "/");
    return sum(gaps) + sum(this.cluster.events(publisher.node, "unsent").filter(({ details }) => details.namespace === "/"));
  }
}
