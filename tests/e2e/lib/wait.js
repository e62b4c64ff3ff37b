// Waiting for a condition with a deadline, and free ports.
import net from "node:net";

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `condition` gives something true and returns it; fails with `what` after `ms` milliseconds. */
export async function until(what, condition, ms = 5000) {
  const end = performance.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await sleep(5);
  }
}

/** Fails with `what` unless `promise` settles within `ms` milliseconds. */
export async function within(what, promise, ms = 5000) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const listen = (port) => new Promise((resolve, reject) => {
  const server = net.createServer();
  server.once("error", reject);
  server.listen(port, "127.0.0.1", () => resolve(server));
});

/** The first of `count` ports in a row that nobody listens on. */
export async function freePorts(count = 1) {
  for (;;) {
    const servers = [];
    try {
      servers.push(await listen(0));
      const first = servers[0].address().port;
      for (let i = 1; i < count; i += 1) servers.push(await listen(first + i));
      return first;
    } catch {
      // One of them is taken: try elsewhere.
    } finally {
      await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
    }
  }
}
