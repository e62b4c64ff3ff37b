// Keeps the tables of docs/guarantees.md true to what the conformance suites found.
//
//   node scripts/guarantees.mjs --check FOLDER    fails if the page says something else than the rows in FOLDER
//   node scripts/guarantees.mjs --write FOLDER    writes the page from them
//
// A suite writes its row into the folder that CONFORMANCE_ROWS names, when all of its cases were run.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const page = new URL("../docs/guarantees.md", import.meta.url);
const [begin, end] = ["<!-- guarantees:start -->\n", "<!-- guarantees:end -->\n"];

/** Columns of the tables: the lab, and what the page calls it. */
const columns = [
  ["adapter-conformance/memory", "memory"],
  ["adapter-redis/conformance", "redis"],
  ["adapter-redis/conformance_sentinel", "redis, Sentinel"],
  ["adapter-redis-cluster/conformance", "redis, Cluster"],
  ["adapter-redis-streams/conformance", "redis streams"],
  ["adapter-redis-streams/conformance_shared", "redis streams, shared"],
  ["adapter-nats/conformance", "nats"],
  ["adapter-jetstream/conformance", "jetstream"],
  ["adapter-amqp/conformance_exclusive", "amqp, exclusive queue"],
  ["adapter-amqp/conformance_durable", "amqp, durable queue"],
  ["adapter-rabbitmq-streams/conformance", "amqp streams"],
];
/** Labs that write a row and have no column. */
const elsewhere = ["custom-transport/conformance"];

const fail = (message) => {
  console.error(`guarantees: ${message}`);
  process.exit(1);
};

function rowsOf(folder) {
  const files = readdirSync(folder).filter((name) => name.endsWith(".json"));
  const rows = new Map(files.map((name) => JSON.parse(readFileSync(join(folder, name), "utf8"))).map((row) => [row.lab, row]));
  const missing = columns.filter(([lab]) => !rows.has(lab)).map(([lab]) => lab);
  if (missing.length) fail(`no row of ${missing.join(", ")}: its suite did not run to its end`);
  const known = [...columns.map(([lab]) => lab), ...elsewhere];
  const strange = [...rows.keys()].filter((lab) => !known.includes(lab));
  if (strange.length) fail(`${strange.join(", ")} has no column in scripts/guarantees.mjs`);
  for (const row of rows.values()) {
    for (const { promise, failed } of row.guarantees) if (failed) fail(`${row.lab}: ${failed} cases of "${promise}" failed`);
  }
  return columns.map(([lab, title]) => ({ ...rows.get(lab), title }));
}

/** Letters for reasons, in the order in which they are first needed. */
class Notes {
  reasons = [];
  mark(reason) {
    if (!this.reasons.includes(reason)) this.reasons.push(reason);
    return String.fromCharCode("a".charCodeAt(0) + this.reasons.indexOf(reason));
  }
}

const table = (head, lines) =>
  [head, head.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |\n`).join("");

function tables(rows) {
  const notes = new Notes();
  const cell = ({ passed, inapplicable }) => {
    // What a transport cannot do at all is a promise of its own, and no mark on the others.
    const told = inapplicable.filter((reason) => !passed || !reason.startsWith("the transport"));
    const marks = told.map((reason) => notes.mark(reason)).join(",");
    return (passed ? "yes" : "no") + (marks && ` <sup>${marks}</sup>`);
  };
  const promises = rows[0].guarantees.map(({ promise }, i) => [promise, ...rows.map((row) => cell(row.guarantees[i]))]);
  const size = (bytes) => (bytes % (1 << 20) ? `${Math.floor(bytes / 1024)} KiB` : `${bytes / (1 << 20)} MiB`);
  const yes = (value) => (value ? "yes" : "no");
  const capabilities = [
    ["delivery while connected", ({ delivery }) => delivery],
    ["replay after a cut", ({ replay }) => replay],
    ["confirms", ({ confirms }) => yes(confirms)],
    ["one order for all publishers", ({ total_order: order }) => yes(order)],
    ["largest payload", ({ max_payload: bytes }) => size(bytes)],
  ].map(([name, read]) => [name, ...rows.map((row) => read(row.capabilities))]);
  const judged = rows[0].guarantees.map(({ promise, cases }) => [promise, cases.map((name) => `\`${name}\``).join("<br>")]);
  const titles = rows.map(({ title }) => title);
  const reasons = notes.reasons.map((reason) => `- **${notes.mark(reason)}** ${reason}`).join("\n");
  return [
    "## What holds where\n",
    table(["", ...titles], promises),
    "*yes*: every case that applies has passed. *no*: none applies. Why some were not tried, or none applies:\n",
    `${reasons}\n`,
    "## What each transport declares\n",
    table(["", ...titles], capabilities),
    "## Which cases judge a promise\n",
    table(["promise", "cases"], judged),
  ].join("\n");
}

const [mode, folder] = process.argv.slice(2);
if (!["--check", "--write"].includes(mode) || !folder) fail("usage: guarantees.mjs --check|--write FOLDER");
const text = readFileSync(page, "utf8");
const [from, to] = [text.indexOf(begin) + begin.length, text.indexOf(end)];
if (from < begin.length || to < from) fail("docs/guarantees.md has lost its marks");
const found = `${text.slice(0, from)}\n${tables(rowsOf(folder))}\n${text.slice(to)}`;
if (mode === "--write") writeFileSync(page, found);
else if (found !== text) fail(`docs/guarantees.md is not what the suites found: node scripts/guarantees.mjs --write ${folder}`);
