// The judge itself: each wrong ledger must be found wrong.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Ledger } from "./lib/ledger.js";

/** A ledger of one publisher on node 0, four messages of which number 2 was refused, and a receiver on each node. */
function ledger({ local = [0, 1, 2, 3], remote = [0, 1, 3], gap = 0 } = {}) {
  const gaps = gap === 0 ? [] : [{ details: { origin: "A", namespace: "/", count: gap } }];
  return Object.assign(new Ledger(), {
    cluster: { nodes: [{ node: "A" }, { node: "B" }], events: (node, kind) => (node === 1 && kind === "gap" ? gaps : []) },
    publishers: [{ id: 0, node: 0, sentAt: [1, 2, 3, 4], error: [null, null, "link down", null], micros: [1, 1, 1, 1] }],
    receivers: [{ node: 0, got: [local], at: [[1, 2, 3, 4]] }, { node: 1, got: [remote], at: [[1, 2, 4]] }],
  });
}

test("a ledger without fault passes, with or without a reported loss", () => {
  assert.equal(ledger().judge().lost, 0);
  assert.equal(ledger({ remote: [0, 3], gap: 1 }).judge().lost, 1);
});

for (const [fault, facts, verdict] of [
  ["a silent loss", { remote: [0, 3] }, /lost and reported/],
  ["a loss reported twice", { remote: [0, 3], gap: 2 }, /lost and reported/],
  ["a report without a loss", { gap: 1 }, /lost and reported/],
  ["a duplicate", { remote: [0, 1, 1, 3] }, /duplicates/],
  ["a wrong order", { remote: [1, 0, 3] }, /reordered/],
  ["a refused message that arrives", { remote: [0, 1, 2, 3] }, /refused messages/],
  ["a local socket that misses one", { local: [0, 1, 3] }, /local socket/],
]) {
  test(`${fault} is found`, () => assert.throws(() => ledger(facts).judge(), verdict));
}
