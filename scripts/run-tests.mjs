// Builds all Rust tests, then runs their programs a few at a time: most of them wait for brokers, not for the processor.
//
//   node scripts/run-tests.mjs [JOBS]      JOBS programs at once, by default five for two processors
//
// Prints the output of each program when it has ended, in the form of `cargo test`, then runs the documentation tests.
import { spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import { basename, dirname } from "node:path";
import { createInterface } from "node:readline";

const selection = ["--workspace", "--all-features"];
/** Longest time for one program. A test that waits for ever is a failure, not a reason to wait for ever. */
const limit = 30 * 60_000;
const jobs = Number(process.argv[2] ?? Math.ceil(2.5 * availableParallelism()));
/** Long ones first, so that none of them runs alone at the end. */
const slow = ["adapter-rabbitmq-streams: conformance", "conformance_durable", "conformance_exclusive", "simulation", "mutants", "conformance", "outages"];

const ended = (child) => new Promise((resolve, reject) => child.once("error", reject).once("close", (code) => resolve(code ?? 1)));

async function build() {
  const args = ["test", ...selection, "--no-run", "--message-format=json-render-diagnostics"];
  const cargo = spawn("cargo", args, { stdio: ["ignore", "pipe", "inherit"] });
  const code = ended(cargo);
  const programs = [];
  for await (const line of createInterface({ input: cargo.stdout })) {
    if (!line.startsWith("{")) continue;
    const { executable, profile, target, manifest_path: manifest } = JSON.parse(line);
    if (executable && profile?.test) programs.push({ executable, name: target.name, folder: dirname(manifest) });
  }
  if (await code) process.exit(1);
  const rank = ({ name, folder }) => {
    const index = slow.findIndex((words) => `${basename(folder)}: ${name}`.includes(words));
    return index < 0 ? slow.length : index;
  };
  return programs.sort((a, b) => rank(a) - rank(b));
}

async function run({ executable, name, folder }) {
  const began = performance.now();
  const child = spawn(executable, [], {
    cwd: folder,
    env: { ...process.env, CARGO_MANIFEST_DIR: folder },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const output = [];
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => output.push(data));
  const late = setTimeout(() => child.kill("SIGABRT"), limit);
  const code = await ended(child);
  clearTimeout(late);
  const seconds = Math.round((performance.now() - began) / 1000);
  const end = child.signalCode === "SIGABRT" && seconds * 1000 >= limit ? ", ended because it took too long" : code ? `, ended with ${code}` : "";
  const title = `${basename(folder)}: ${name} (${seconds} s${end})`;
  console.log(`\n     Running ${title}`);
  process.stdout.write(Buffer.concat(output));
  return { title, seconds, failed: code !== 0 };
}

const programs = await build();
if (programs.length === 0) throw new Error("cargo built no test");
const results = [];
const worker = async () => {
  for (let program = programs.shift(); program; program = programs.shift()) results.push(await run(program));
};
await Promise.all(Array.from({ length: jobs }, worker));
const documentation = await ended(spawn("cargo", ["test", ...selection, "--doc"], { stdio: "inherit" }));
console.log("\nThe longest:");
for (const { title } of results.sort((a, b) => b.seconds - a.seconds).slice(0, 10)) console.log(`  ${title}`);
const failed = results.filter((result) => result.failed);
if (failed.length) console.log(`\nFailed:\n${failed.map(({ title }) => `  ${title}`).join("\n")}`);
process.exitCode = failed.length || documentation ? 1 : 0;
