// Draws what the page knows. Nothing here talks to the server, and all text goes in as text, never as HTML.

export const $ = (id) => document.getElementById(id);

/** Makes an element: `el("li", { class: "x", onclick }, child, …)`. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const clockExact = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const time = (at, exact) => el("time", { datetime: new Date(at).toISOString() }, (exact ? clockExact : clock).format(at));

const initials = (name) => {
  const words = name.trim().split(/\s+/);
  return (words.length > 1 ? words[0][0] + words.at(-1)[0] : [...name].slice(0, 2).join("")).toUpperCase();
};

// Ports that follow each other get hues far apart; a node of unknown address gets one from its id.
const HUES = [42, 205, 305, 135, 255, 85, 350, 165];
const hueOf = (node) => {
  const port = Number(/:(\d+)$/.exec(node.label ?? "")?.[1]);
  const seed = port || [...node.id].reduce((sum, char) => (sum * 31 + char.charCodeAt(0)) >>> 0, 7);
  return HUES[seed % HUES.length];
};

/** Gives an element, and all in it, the colours of a node. */
export function tint(element, node) {
  element.setAttribute("data-node", node.id);
  element.style.setProperty("--hue", hueOf(node));
  return element;
}

export const short = (id) => id.slice(0, 6);
/** What a person calls a node: its port, or the start of its id. */
export const nodeName = (node) => /:\d+$/.exec(node.label ?? "")?.[0] ?? short(node.id);
// A node of this machine is reached by the host name that this page was reached by.
const urlOf = (node) => {
  const [, host, port] = /^(.*):(\d+)$/.exec(node.label ?? "") ?? [];
  if (!port) return null;
  const here = ["127.0.0.1", "0.0.0.0", "localhost", "[::]", "::"].includes(host);
  return `${location.protocol}//${here ? location.hostname : host}:${port}/`;
};
const avatar = (name, node) => tint(el("span", { class: "avatar", "aria-hidden": "true" }, initials(name)), node);
const chip = (node) => tint(el("span", { class: "chip", title: `node ${node.id}` }, nodeName(node)), node);
const plural = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;

/** The rooms on the left; `actions` are `open(room)` and `leave(room)`. */
export function drawRooms(state, actions) {
  const items = state.rooms.map((room) => {
    const current = room === state.room;
    const joined = state.joined.has(room);
    const unread = current ? 0 : (state.unread.get(room) ?? 0);
    const open = el("button", { type: "button", class: "open", "aria-current": current && "true", onclick: () => actions.open(room) },
      el("span", {}, room),
      unread > 0 && el("span", { class: "badge", "aria-label": `${unread} unread` }, String(Math.min(unread, 99))));
    const leave = joined && state.joined.size > 1 &&
      el("button", { type: "button", class: "icon leave", "aria-label": `Leave ${room}`, onclick: () => actions.leave(room) }, icon("close"));
    const classes = [current && "current", joined && "joined", unread > 0 && "unread"].filter(Boolean).join(" ");
    return el("li", { class: classes }, open, leave);
  });
  $("rooms").replaceChildren(...items);
  const total = [...state.unread].reduce((sum, [room, count]) => sum + (room === state.room ? 0 : count), 0);
  $("unread").hidden = total === 0;
  $("unread").textContent = Math.min(total, 99);
}

/** Who this is and which node it is on. */
export function drawMe(state) {
  $("my-name").textContent = state.name;
  $("my-name").setAttribute("aria-label", `Your name: ${state.name}. Change it`);
  const node = state.node;
  if (!node) return;
  tint($("my-avatar"), node).textContent = initials(state.name);
  const card = tint(document.querySelector(".here"), node);
  card.querySelector("strong").textContent = `node ${nodeName(node)}`;
  $("my-node-id").textContent = node.id;
}

/** The title bar. */
export function drawRoom(state) {
  $("room-name").textContent = state.room;
  $("text").placeholder = `Message #${state.room}`;
  document.title = `#${state.room} on ${state.node ? nodeName(state.node) : location.host}`;
  const here = state.people.filter((person) => person.rooms.includes(state.room));
  const nodes = new Set(here.map((person) => person.node.id)).size;
  $("room-info").textContent = state.connected ? `${plural(here.length, "person").replace("persons", "people")} here, on ${plural(nodes, "node")}` : "not connected";
  $("empty-title").textContent = here.length > 1 ? "Say something" : "You are the first one here";
  $("empty-text").textContent = here.length > 1
    ? "Everyone in this room hears it, whichever node they are connected to. Messages are not stored."
    : "Open another node in a second tab and join as somebody else: what you write crosses from one server to the other.";
}

/** The nodes and the people on them; `actions.wave(person)`. */
export function drawNodes(state, actions) {
  const cards = state.nodes.map((node) => {
    const people = state.people.filter((person) => person.node.id === node.id);
    const mine = node.id === state.node?.id;
    const header = el("header", {}, el("span", { class: "dot" }), el("strong", {}, nodeName(node)),
      node.label ? el("span", { class: "mono", title: node.id }, short(node.id)) : el("span", { class: "mono" }),
      mine ? el("span", { class: "tag" }, "you are here")
        : urlOf(node) && el("a", { href: urlOf(node), target: "_blank", rel: "noopener", "aria-label": `Open node ${nodeName(node)} in a new tab` }, "open", icon("open")));
    const rows = people.map((person) => el("li", { class: person.rooms.includes(state.room) ? "" : "elsewhere" },
      avatar(person.name, node),
      el("span", { class: "who" }, person.name, person.id === state.id && el("small", {}, " (you)")),
      person.id !== state.id && el("button", { type: "button", class: "wave", disabled: !state.connected, "aria-label": `Wave at ${person.name}`, onclick: () => actions.wave(person) }, icon("wave"), "Wave")));
    const body = rows.length > 0 ? el("ul", {}, ...rows) : el("p", { class: "nobody" }, state.rosterError && !mine ? "Not to be asked at the moment." : "Nobody is on this node.");
    return tint(el("li", { class: "node" }, header, body), node);
  });
  $("nodes").replaceChildren(...cards);
  $("roster-error").hidden = !state.rosterError;
  $("roster-error").textContent = state.rosterError ?? "";
}

/** Lets the card of a node light up: something came from it. */
export function pulse(nodeId) {
  const card = document.querySelector(`.node[data-node="${CSS.escape(nodeId)}"]`);
  card?.classList.remove("pulse");
  requestAnimationFrame(() => card?.classList.add("pulse"));
}

const LINK = {
  connecting: ["connecting", "The node is connecting to the message bus."],
  up: ["connected", ""],
  down: ["bus lost", "This node has lost the message bus. You still reach everyone on this node, and it reconnects by itself."],
  closed: ["bus closed", "The message bus of this node is closed. You only reach the people on this node."],
};

/** The link of the node to the bus, and the banner above the messages. */
export function drawLink(state) {
  const link = state.connected ? state.link.state : "down";
  for (const mark of document.querySelectorAll("[data-link]")) mark.dataset.link = link;
  $("link-text").textContent = state.connected ? `${state.bus} ${LINK[link][0]}` : "node unreachable";
  $("link").title = state.link.reason ?? "";
  const banner = $("banner");
  const lost = state.started && !state.connected;
  banner.hidden = !lost && (link === "up" || !state.started);
  banner.dataset.tone = lost ? "bad" : "warn";
  const text = lost ? `No connection to this node (${location.host}). Trying again…` : LINK[link][1];
  const reason = !lost && state.link.reason;
  banner.replaceChildren(text, reason ? el("span", { class: "faint" }, ` (${reason})`) : "");
  $("composer").querySelector(".send").disabled = !state.connected;
}

const STATUS = { sending: ["Sending…"], sent: [], partial: ["only on this node", "warn", "warn"], failed: ["not sent", "bad", "warn"] };

/** Sets what became of a message of ours. */
export function mark(item, status, why) {
  const [text, tone, symbol] = STATUS[status];
  item.classList.toggle("sending", status === "sending");
  const slot = item.querySelector(".status");
  slot.replaceChildren(...(text ? [symbol ? icon(symbol) : "", text] : []));
  slot.title = why ?? "";
  if (tone) slot.dataset.tone = tone;
  else delete slot.dataset.tone;
}

function follows(message) {
  const last = $("messages").lastElementChild;
  return last?.dataset.from === message.from.id && message.at - Number(last.dataset.at) < 180_000;
}

/** Appends one message, or the note of a gap, to the room on show. */
export function append(entry, fresh) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  let item;
  if (entry.gap) {
    item = el("li", { class: "gap" }, el("span", {}, entry.gap));
  } else {
    const { from, at, text, id } = entry;
    item = el("li", { class: `message${follows(entry) ? " follow" : ""}${fresh ? " fresh" : ""}`, "data-from": from.id, "data-at": at, "data-id": id },
      avatar(from.name, from.node),
      el("div", { class: "head" }, el("strong", {}, from.name), chip(from.node), time(at)),
      el("div", { class: "body" }, el("p", {}, text), el("span", { class: "status" })));
    item.querySelector(".head").style.gridColumn = "2";
    item.querySelector(".body").style.gridColumn = "2";
    item.querySelector(".avatar").style.gridRow = "1 / span 2";
    if (entry.status) mark(item, entry.status, entry.why);
  }
  $("messages").append(item);
  $("empty").hidden = true;
  $("messages").hidden = false;
  if (atEnd || !fresh || entry.mine) log.scrollTop = log.scrollHeight;
  return item;
}

/** Shows the whole log of a room. */
export function drawLog(entries) {
  $("messages").replaceChildren();
  $("empty").hidden = entries.length > 0;
  $("messages").hidden = entries.length === 0;
  for (const entry of entries) entry.item = append(entry, false);
}

export function drawTyping(names) {
  const text = names.length === 0 ? "" : names.length === 1 ? `${names[0]} is typing…`
    : names.length === 2 ? `${names[0]} and ${names[1]} are typing…` : "Several people are typing…";
  $("typing").textContent = text;
}

// Node ids in a text become the marks by which the page shows these nodes everywhere else.
function withChips(text, known) {
  return text.split(/\b([\w-]{16})(?![\w-])/).map((part, i) => {
    const node = i % 2 === 1 && known.get(part);
    return node ? chip(node) : part;
  });
}

/** Shows the events of the cluster, the newest first; `known` maps the ids of nodes to nodes. */
export function drawFeed(feed, known) {
  $("feed-empty").hidden = feed.length > 0;
  const items = feed.slice(-60).reverse().map((event) =>
    el("li", { "data-tone": event.tone }, el("p", {}, ...withChips(event.text, known)), time(event.at, true)));
  $("feed").replaceChildren(...items);
}

/** Counters of the node: pairs of a name and a number. */
export function drawStats(stats) {
  $("stats").hidden = !stats?.length;
  $("stats").replaceChildren(...(stats ?? []).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value.toLocaleString()))));
}

export function toast(text) {
  const note = el("div", { class: "toast" }, text);
  $("toasts").append(note);
  setTimeout(() => note.remove(), 4500);
}
