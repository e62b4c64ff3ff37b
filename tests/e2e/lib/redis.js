// A redis-server of our own: a child process on a free port, with nothing on disk but a temporary folder.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePorts, until } from "./wait.js";

export class Redis {
  static async start(options = []) {
    const redis = new Redis();
    redis.port = await freePorts();
    redis.folder = mkdtempSync(join(tmpdir(), "e2e-redis-"));
    redis.options = options;
    await redis.run();
    return redis;
  }

  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Starts the process (again, on the same port) and resolves, with the time, once it answers. */
  async run() {
    const args = ["--port", this.port, "--bind", "127.0.0.1", "--dir", this.folder, "--save", "", "--appendonly", "no", ...this.options];
    this.child = spawn("redis-server", args.map(String), { stdio: "ignore" });
    const failed = new Promise((_, reject) => this.child.once("error", reject));
    this.exited = new Promise((resolve) => this.child.once("exit", resolve));
    await Promise.race([until("redis accepts connections", () => this.answers(), 10_000), failed]);
    return performance.now();
  }

  /** Whether it accepts a connection and answers on it, be it with an error. */
  answers() {
    return new Promise((resolve) => {
      const socket = net.connect(this.port, "127.0.0.1", () => socket.write("PING\r\n"));
      const end = (answer) => {
        socket.destroy();
        resolve(answer);
      };
      socket.setTimeout(300, () => end(false));
      socket.once("data", () => end(true));
      socket.once("error", () => end(false));
    });
  }

  /** Kills it as a crash does (SIGKILL). */
  async kill() {
    this.child.kill("SIGKILL");
    await this.exited;
  }

  freeze() {
    this.child.kill("SIGSTOP");
  }

  thaw() {
    this.child.kill("SIGCONT");
  }

  async stop() {
    this.child.kill("SIGKILL");
    await this.exited;
    rmSync(this.folder, { recursive: true, force: true });
  }
}
