// A broker of our own, of any kind: the lab's program runs it as a child process and obeys words on its input.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { program } from "./servers.js";
import { within } from "./wait.js";

/** Longer than any broker needs to start: some take seconds even on an idle machine. */
const LIMIT_MS = 60_000;

export class Broker {
  /** Starts the broker of a URL scheme; resolves once it takes connections. */
  static async start(scheme, { password } = {}) {
    const broker = new Broker();
    broker.answers = [];
    broker.errors = "";
    broker.child = spawn(program("broker-lab"), password ? [scheme, password] : [scheme], { stdio: ["pipe", "pipe", "pipe"] });
    broker.child.stderr.on("data", (data) => (broker.errors += data));
    broker.child.stdin.on("error", () => {});
    broker.exited = new Promise((resolve) => broker.child.once("exit", resolve));
    broker.exited.then(() => broker.answers.splice(0).forEach(({ reject }) => reject(new Error(`the lab ended: ${broker.errors}`))));
    createInterface({ input: broker.child.stdout }).on("line", (line) => broker.answers.shift()?.resolve(JSON.parse(line)));
    const { url } = await broker.answer(`${scheme} starts`);
    broker.url = url;
    return broker;
  }

  answer(what) {
    return within(what, new Promise((resolve, reject) => this.answers.push({ resolve, reject })), LIMIT_MS);
  }

  async tell(word) {
    this.child.stdin.write(`${word}\n`);
    const { error } = await this.answer(`the broker obeys ${word}`);
    if (error) throw new Error(`${word}: ${error}`);
  }

  /** Kills it as a crash does (SIGKILL). */
  kill() {
    return this.tell("kill");
  }

  /** Starts it again, on the same port and with its data, and resolves, with the time, once it takes connections. */
  async restart() {
    await this.tell("restart");
    return performance.now();
  }

  /** Lets another server take the place of the one that serves, where there is one. */
  failOver() {
    return this.tell("fail-over");
  }

  freeze() {
    return this.tell("freeze");
  }

  thaw() {
    return this.tell("thaw");
  }

  /** Ends it, in whatever state it is. */
  async stop() {
    this.child.stdin.end();
    await within("the lab ends", this.exited, LIMIT_MS);
  }
}
