// The chat page in a real browser, on two nodes.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { Broker } from "./lib/broker.js";
import { example } from "./lib/servers.js";
import { freePorts, until, within } from "./lib/wait.js";

const folder = fileURLToPath(new URL("../../examples/chat/", import.meta.url));
const pictures = join(dirname(dirname(example("chat"))), "..", "chat-screenshots");
mkdirSync(pictures, { recursive: true });

let browser;
before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});
after(() => browser?.close());

const running = [];
afterEach(async () => {
  for (const context of browser.contexts()) await context.close();
  for (const { child, exited } of running.splice(0)) {
    child.kill("SIGKILL");
    await exited;
  }
});

/** Starts the example; gives the addresses it prints. */
async function chat(...args) {
  const child = spawn(example("chat"), args, { stdio: ["ignore", "pipe", "pipe"] });
  const one = { child, urls: [], errors: "", exited: new Promise((resolve) => child.once("exit", resolve)) };
  running.push(one);
  child.stderr.on("data", (data) => (one.errors += data));
  let complete = false;
  createInterface({ input: child.stdout }).on("line", (line) => {
    if (/^ +http/.test(line)) one.urls.push(line.trim());
    if (line.startsWith("Open")) complete = true;
  });
  await until("the chat is ready", () => complete || child.exitCode !== null, 15_000);
  assert.ok(complete, one.errors);
  return one;
}

const desktop = { viewport: { width: 1280, height: 800 } };
const phone = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme: "dark" };

/** Opens a tab as somebody; any error on the page fails the test when the page is closed. */
async function join_as(name, url, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(error.message));
  page.setDefaultTimeout(10_000);
  await page.goto(url);
  await page.getByRole("textbox", { name: "Your name" }).fill(name);
  await page.getByRole("button", { name: "Join the chat" }).click();
  await page.locator("#link[data-link=up]").waitFor({ state: "attached" });
  return page;
}

async function say(page, text) {
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.getByRole("button", { name: "Send" }).click();
}

const message = (page, text) => page.locator(".message", { hasText: text });
const hears = (page, text) => message(page, text).waitFor();

test("two tabs on two nodes see each other", async () => {
  const { urls } = await chat("--port", String(await freePorts(3)));
  assert.equal(urls.length, 3);
  const ada = await join_as("Ada", urls[0], desktop);
  const grace = await join_as("Grace", urls[1], phone);

  // Who is where, from the cluster itself; the third node is listed though nobody is on it.
  const cards = ada.locator("#nodes .node");
  await cards.nth(2).waitFor();
  const port = (url) => `:${new URL(url).port}`;
  await cards.filter({ hasText: port(urls[0]) }).getByText("Ada (you)").waitFor();
  await cards.filter({ hasText: port(urls[1]) }).getByText("Grace").waitFor();
  await cards.filter({ hasText: port(urls[2]) }).getByText("Nobody is on this node.").waitFor();

  await say(ada, "Hello from the first node");
  await hears(grace, "Hello from the first node");
  await say(grace, "Hello back from the second");
  await hears(ada, "Hello back from the second");
  assert.equal(await message(ada, "Hello back").locator(".chip").textContent(), port(urls[1]));

  // A room made on one node is there on the other, and only those in it hear what is said there.
  await ada.getByLabel("Name of a new room").fill("Release Day");
  await ada.keyboard.press("Enter");
  await ada.locator("#room-name", { hasText: "release-day" }).waitFor();
  await say(ada, "Only for this room");
  await grace.getByRole("button", { name: "Rooms", exact: true }).click();
  await grace.getByRole("button", { name: "release-day" }).click();
  await ada.locator("#room-info", { hasText: "2 people here, on 2 nodes" }).waitFor();
  await say(grace, "Now I am here as well");
  await hears(ada, "Now I am here as well");
  assert.equal(await message(grace, "Only for this room").count(), 0);

  // One socket on another node is asked, and answers.
  await ada.getByRole("button", { name: "Wave at Grace" }).click();
  await grace.locator(".toast", { hasText: "Ada waves at you" }).waitFor();
  await ada.locator(".toast", { hasText: "Grace saw it" }).waitFor();

  await grace.screenshot({ path: join(pictures, "phone.png") });
  await ada.screenshot({ path: join(pictures, "desktop.png") });
  assert.deepEqual([...ada.problems, ...grace.problems], []);
});

test("the page tells when the broker is gone, and when it is back", async () => {
  const redis = await Broker.start("redis");
  try {
    const first = await chat("--bus", redis.url, "--nodes", "1", "--port", String(await freePorts()));
    const second = await chat("--bus", redis.url, "--nodes", "1", "--port", String(await freePorts()));
    const ada = await join_as("Ada", first.urls[0], desktop);
    const bob = await join_as("Bob", first.urls[0], desktop);
    const grace = await join_as("Grace", second.urls[0], desktop);
    await say(grace, "All is well");
    await hears(ada, "All is well");

    await redis.kill();
    await ada.locator("#banner", { hasText: "lost the message bus" }).waitFor();
    await say(ada, "Can anybody hear me?");
    await hears(bob, "Can anybody hear me?");
    await message(ada, "Can anybody hear me?").getByText("only on this node").waitFor();
    await ada.screenshot({ path: join(pictures, "broker-down.png") });

    await redis.restart();
    await ada.locator("#banner").waitFor({ state: "hidden" });
    await grace.locator("#banner").waitFor({ state: "hidden" });
    await say(ada, "Back again");
    await hears(grace, "Back again");
    assert.equal(await message(grace, "Can anybody hear me?").count(), 0);

    // A node that is stopped in order says goodbye, and its people are gone from the list of the others.
    second.child.kill("SIGINT");
    assert.equal(await within("the node stops", second.exited, 10_000), 0);
    await ada.locator("#feed li", { hasText: "left" }).first().waitFor();
    await ada.locator("#nodes").getByText("Grace").waitFor({ state: "detached" });
    await grace.locator("#banner", { hasText: "No connection to this node" }).waitFor();
    assert.deepEqual([...ada.problems, ...bob.problems, ...grace.problems], []);
  } finally {
    await redis.stop();
  }
});

test("the client from the CDN is the one from npm", () => {
  const source = readFileSync(join(folder, "page.rs"), "utf8");
  const [, version, integrity] = /cdn\.socket\.io\/([\d.]+)\/socket\.io\.min\.js" integrity="(sha384-[^"]+)"/.exec(source);
  const installed = join(folder, "node_modules/socket.io-client");
  assert.equal(JSON.parse(readFileSync(join(installed, "package.json"), "utf8")).version, version);
  const hash = createHash("sha384").update(readFileSync(join(installed, "dist/socket.io.min.js"))).digest("base64");
  assert.equal(integrity, `sha384-${hash}`);
});
