// The page's side of the chat: one socket, what it knows, and what the person does with it.
import * as view from "./view.js";

const { $ } = view;
const STORED_MESSAGES = 500;
const state = {
  started: false,
  connected: false,
  id: "",
  name: sessionStorage.getItem("name") ?? "",
  node: null,
  bus: "",
  link: { state: "connecting" },
  room: sessionStorage.getItem("room") ?? "general",
  joined: new Set(JSON.parse(sessionStorage.getItem("joined") ?? '["general"]')),
  rooms: ["general", "random"],
  unread: new Map(),
  logs: new Map(),
  people: [],
  feed: [],
  nodes: [],
  /** Every node seen so far by its id, so that events of a node that is gone can still name it. */
  known: new Map(),
  rosterError: null,
};
state.joined.add(state.room);

if (!window.io) {
  view.$("banner").hidden = false;
  view.$("banner").dataset.tone = "bad";
  view.$("banner").textContent = "The Socket.IO client could not be loaded. Run npm ci in examples/chat and reload the page.";
  throw new Error("no socket.io client");
}
const socket = window.io({
  autoConnect: false,
  reconnectionDelayMax: 2000,
  // Read at every connection: after a reconnect, perhaps to another process, the server knows nothing of this page.
  auth: (use) => use({ name: state.name, rooms: [...state.joined] }),
});

// --- what the server says ---

socket.on("connect", () => {
  state.id = socket.id;
});

socket.on("hello", (hello) => {
  Object.assign(state, { connected: true, started: true, node: hello.node, bus: hello.bus, link: hello.link });
  know([hello.node]);
  state.feed = hello.feed;
  view.drawFeed(state.feed, state.known);
  redraw();
  askRoster();
});

socket.on("disconnect", () => {
  state.connected = false;
  redraw();
});

socket.on("connect_error", (error) => {
  state.started = true;
  state.connected = false;
  redraw();
  if (!socket.active) view.toast(`The node refused the connection: ${error.message}`);
});

socket.on("message", (message) => {
  view.pulse(message.from.node.id);
  clearTyping(message.from.id);
  const log = logOf(message.room);
  // Our own message comes back like everyone's; it takes the place of what we drew when it was sent.
  const own = log.find((entry) => entry.id === message.id);
  if (own) return;
  record(message.room, message);
});

socket.on("typing", ({ room, from }) => {
  if (room === state.room && from.id !== state.id) noteTyping(from);
});

socket.on("event", (event) => {
  state.feed.push(event);
  view.drawFeed(state.feed, state.known);
  if (event.gap) for (const room of state.joined) record(room, { gap: event.gap });
  askRoster();
});

socket.on("link", (link) => {
  state.link = link;
  view.drawLink(state);
  askRoster();
});

// Somebody, somewhere in the cluster, came, went or changed rooms.
socket.on("changed", () => askRoster());

socket.on("wave", (from, answer) => {
  view.toast(`${from.name} waves at you from node ${view.nodeName(from.node)}`);
  view.pulse(from.node.id);
  answer(state.name);
});

// --- who is where: asked of our node, which asks the others ---

let asking = false;
let askAgain = false;
async function askRoster() {
  if (!state.connected) return;
  if (asking) {
    askAgain = true;
    return;
  }
  asking = true;
  try {
    const roster = await socket.timeout(12_000).emitWithAck("roster", null);
    state.people = roster.people;
    know(roster.nodes);
    state.nodes = roster.nodes.map((node) => state.known.get(node.id));
    state.link = roster.link;
    state.rosterError = roster.error && `Only this node could be asked: ${roster.error}`;
    const theirs = roster.people.flatMap((person) => person.rooms);
    state.rooms = [...new Set(["general", "random", ...state.joined, ...theirs])].sort();
    view.drawStats(roster.stats);
    redraw();
    view.drawFeed(state.feed, state.known);
  } catch {
    // The connection went away meanwhile; the next hello asks again.
  }
  asking = false;
  if (askAgain) {
    askAgain = false;
    setTimeout(askRoster, 150 + Math.random() * 150);
  }
}

// A node is known by its address once a person was seen on it; until then by its id alone.
function know(nodes) {
  for (const node of nodes) if (node.label || !state.known.has(node.id)) state.known.set(node.id, node);
}


// --- messages ---

const logOf = (room) => {
  if (!state.logs.has(room)) state.logs.set(room, []);
  return state.logs.get(room);
};

function record(room, entry) {
  const log = logOf(room);
  log.push(entry);
  if (log.length > STORED_MESSAGES) log.shift();
  if (room === state.room) {
    entry.item = view.append(entry, true);
  }
  if (!entry.gap && !entry.mine && (room !== state.room || document.hidden)) {
    state.unread.set(room, (state.unread.get(room) ?? 0) + 1);
    view.drawRooms(state, actions);
  }
}

async function send(text) {
  const room = state.room;
  const id = crypto.randomUUID?.() ?? `${socket.id}-${performance.now()}`;
  const entry = { id, room, text, at: Date.now(), from: { id: state.id, name: state.name, node: state.node }, mine: true, status: "sending" };
  record(room, entry);
  try {
    const answer = await socket.timeout(12_000).emitWithAck("message", { id, room, text });
    entry.status = answer.status;
    entry.why = answer.why;
  } catch {
    entry.status = "failed";
    entry.why = "the node did not answer";
  }
  if (entry.item?.isConnected) view.mark(entry.item, entry.status, entry.why);
}

// --- typing ---

const typing = new Map();
let typingSentAt = 0;

function noteTyping(from) {
  clearTimeout(typing.get(from.id)?.timer);
  typing.set(from.id, { name: from.name, timer: setTimeout(() => clearTyping(from.id), 3500) });
  view.drawTyping([...typing.values()].map((one) => one.name));
}

function clearTyping(id) {
  clearTimeout(typing.get(id)?.timer);
  if (typing.delete(id)) view.drawTyping([...typing.values()].map((one) => one.name));
}

// --- what the person does ---

const actions = {
  async open(room) {
    openPanel("");
    if (!state.joined.has(room)) {
      const answer = await socket.timeout(5000).emitWithAck("join", room).catch(() => ({ error: "the node did not answer" }));
      if (answer.error) return view.toast(`Cannot join: ${answer.error}`);
      room = answer.room;
      state.joined.add(room);
      if (!state.rooms.includes(room)) state.rooms.push(room);
    }
    show(room);
  },
  leave(room) {
    socket.emit("leave", room);
    state.joined.delete(room);
    state.unread.delete(room);
    show(room === state.room ? [...state.joined][0] : state.room);
  },
  async wave(person) {
    const answer = await socket.timeout(8000).emitWithAck("wave", person.id).catch(() => ({ error: "no answer" }));
    view.toast(answer.error ? `${person.name} did not see it: ${answer.error}` : `${answer.name} saw it on node ${view.nodeName(person.node)}, ${answer.ms} ms there and back`);
  },
};

function show(room) {
  state.room = room;
  state.unread.delete(room);
  sessionStorage.setItem("room", room);
  sessionStorage.setItem("joined", JSON.stringify([...state.joined]));
  for (const id of [...typing.keys()]) clearTyping(id);
  view.drawLog(logOf(room));
  redraw();
  askRoster();
  if (matchMedia("(hover: hover)").matches) $("text").focus();
}

function redraw() {
  view.drawMe(state);
  view.drawRooms(state, actions);
  view.drawRoom(state);
  view.drawNodes(state, actions);
  view.drawLink(state);
}

const field = $("text");
const fit = () => {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
};
field.addEventListener("input", () => {
  fit();
  if (Date.now() - typingSentAt < 2000 || !field.value) return;
  typingSentAt = Date.now();
  socket.volatile.emit("typing", state.room);
});
field.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = field.value.trim();
  if (!text || !state.connected) return;
  send(text);
  field.value = "";
  typingSentAt = 0;
  fit();
});
$("new-room").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = event.target.elements.room;
  if (input.value.trim()) actions.open(input.value.trim());
  input.value = "";
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  state.unread.delete(state.room);
  view.drawRooms(state, actions);
});

// --- drawers, theme, name ---

const app = document.querySelector(".app");
const narrow = { rooms: matchMedia("(max-width: 759px)"), cluster: matchMedia("(max-width: 1099px)") };
let opener = null;

function openPanel(name) {
  if (name) opener = document.activeElement;
  app.dataset.panel = name;
  for (const [panel, query] of Object.entries(narrow)) {
    const open = panel === name;
    $(`${panel}-panel`).inert = query.matches && !open;
    document.querySelector(`[data-open="${panel}"]`).setAttribute("aria-expanded", String(open));
    if (open && query.matches) $(`${panel}-panel`).querySelector("[data-close]").focus();
  }
  document.querySelector("main").inert = Boolean(name) && narrow[name].matches;
  if (!name) opener?.focus?.();
  if (!name) opener = null;
}
for (const query of Object.values(narrow)) query.addEventListener("change", () => openPanel(""));
for (const button of document.querySelectorAll("[data-open]")) button.addEventListener("click", () => openPanel(button.dataset.open));
for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => openPanel(""));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && app.dataset.panel) openPanel("");
});
openPanel("");

const THEMES = ["", "dark", "light"];
const applyTheme = (theme) => {
  document.documentElement.dataset.theme = theme;
  $("theme").title = `Colours: ${theme || "as the system"}`;
};
applyTheme(localStorage.getItem("theme") ?? "");
$("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  localStorage.setItem("theme", next);
  applyTheme(next);
  view.toast(`Colours: ${next || "as the system"}`);
});

const NAMES = ["Ada", "Grace", "Linus", "Barbara", "Edsger", "Radia", "Ken", "Frances", "Leslie", "Margaret", "Tony", "Joan"];
const welcome = $("welcome");
$("welcome-node").textContent = location.host;
$("name").value = state.name || NAMES[Math.floor(Math.random() * NAMES.length)];

function join(name) {
  state.name = name.trim().slice(0, 32) || "Somebody";
  sessionStorage.setItem("name", state.name);
  if (socket.connected) socket.emit("rename", state.name);
  else socket.connect();
  redraw();
}
function askName() {
  openPanel("");
  welcome.showModal();
  $("name").select();
}
welcome.addEventListener("close", () => join($("name").value));
$("my-name").addEventListener("click", askName);

view.drawLog(logOf(state.room));
redraw();
const given = new URLSearchParams(location.search).get("name");
if (given || state.name) join(given || state.name);
else askName();
