"use strict";

// A client of the subprotocol channels.v1, and the page around it. A room is a channel: chat/lobby, say.

const ROOMS = ["lobby", "kitchen", "library"];
const ROOM = /^[\p{L}\p{N}_-]+$/u;
const LINES = 500;             // what the page keeps of a room
const FIRST_WAIT = 500;        // before the first attempt to connect again (ms); then twice that, and so on
const LONGEST_WAIT = 30_000;
const HEARTBEAT = 30_000;      // how long the server may be silent (ms) before it is asked whether it is there

const at = (id) => document.getElementById(id);

let name = null;               // who we are; null before we have entered
let room = null;
let socket = null;             // the one that is open, or opening
let last = null;               // id of the last message that we know in this room; null: we know none
let behind = true;             // kept messages may still be coming
let attempts = 0;              // to connect, since it worked last
let retry = null;              // the timer of the next attempt
let silent = false;            // we have asked whether the server is there
const unsent = new Map();      // what we have said and not seen yet, by key
const members = new Set();     // who is in the room

const channel = () => `chat/${room}`;

// ---- The connection

function connect() {
  drop();
  silent = false;
  show("Connecting…");

  // After the last message that we know; "*": all that is kept.
  const query = `${encodeURIComponent(name)}&last_event_id=${encodeURIComponent(last ?? "*")}`;
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const opening = new WebSocket(`${scheme}://${location.host}/chat/${encodeURIComponent(room)}?${query}`, "channels.v1");
  socket = opening;
  // The handshake has subscribed us. Once more, to be told who is there: that is answered after all that is kept.
  opening.onopen = () => ask({ type: "subscribe", channel: channel(), presence: true });
  opening.onmessage = ({ data }) => {
    silent = false;
    const said = JSON.parse(data);
    // Not what was still under way from a room that we have left, but for the word that our message is there.
    if ([undefined, channel()].includes(said.channel) || said.type === "published") answers[said.type]?.(said);
  };
  opening.onclose = ({ code, reason }) => lost(code, reason);
}

// Lets go of the socket: nothing that it might still have to say is heard.
function drop(code) {
  clearTimeout(retry);
  retry = null;
  behind = true;
  if (!socket) return;
  socket.onopen = socket.onmessage = socket.onclose = null;
  socket.close(code);
  socket = null;
}

function lost(code, reason) {
  drop();
  at("members").classList.add("stale");
  at("reconnect").hidden = false;
  // Somebody wanted it so. Everything else will pass: a restart, a network that is gone, a client that was too slow.
  if (code === 1000 || code === 1008 || code >= 3000) {
    show(`Closed by the server: ${reason || code}.`);
    return;
  }
  // Not all clients in one instant.
  const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** attempts) * (0.5 + Math.random() / 2);
  attempts += 1;
  retry = setTimeout(connect, wait);
  show(`Connection lost. Trying again in ${Math.max(1, Math.round(wait / 1000))} s.`);
}

// A network may go without a word. The server's pings do not reach scripts, so we ask for what we have: that changes
// nothing, and is answered.
function watch() {
  if (!socket) return;
  if (silent) {
    lost(1006);
    return;
  }
  silent = true;
  if (!behind) ask({ type: "subscribe", channel: channel() });
}

setInterval(watch, HEARTBEAT);

addEventListener("online", () => {
  if (retry !== null) connect();
});

// A browser may keep a page that was left, to show it again at once (back/forward cache). Its socket would stay open: it
// answers Pings and takes messages, and we would be shown to others as if we read them.
let left = false;

addEventListener("pagehide", () => {
  left = socket !== null || retry !== null;
  drop(1000);
});

addEventListener("pageshow", ({ persisted }) => {
  if (persisted && left && name !== null) connect();
});

function ask(request) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(request));
}

// ---- What the server says

const answers = {
  subscribed({ id, recovered }) {
    attempts = 0;
    if (id === undefined) return;
    if (recovered === true) note("Reconnected, nothing missed.");
    if (recovered === false) note("Reconnected. Some messages may have been missed here.");
    last = id;
  },

  message({ id, data, base64 }) {
    last = id;
    const { from, text, key } = data === undefined ? { text: `(binary: ${base64})` } : read(data);
    settle(key);
    line(from, text);
  },

  presence({ members: all }) {
    members.clear();
    for (const { member } of all) members.add(member);
    showMembers();
    if (!behind) return;
    behind = false;
    at("messages").removeAttribute("aria-busy");
    at("reconnect").hidden = true;
    show("Connected.");
    // What we sent over an earlier connection, and is not among the messages that have come, did not arrive.
    for (const [key, { over }] of unsent) if (over !== socket) publish(key);
  },

  join({ member }) {
    members.add(member);
    showMembers();
    note(`${member} has come.`);
  },

  leave({ member }) {
    members.delete(member);
    showMembers();
    note(`${member} has left.`);
  },

  published({ ref }) {
    settle(ref);
  },

  error({ message, ref }) {
    const refused = settle(ref);
    note(refused ? `Not sent: ${message}.` : `The server says: ${message}.`);
    if (refused) at("text").value ||= refused.text;
  },
};

// What this page has published, or what somebody else has: plain text, from nobody.
function read(data) {
  try {
    const { from, text, key } = JSON.parse(data);
    if (typeof from === "string" && typeof text === "string") return { from, text, key };
  } catch { /* No JSON. */ }
  return { text: data };
}

// ---- What we say

// It comes back in its place among what the others say. By the key we know it again; until then it waits at the end.
function say(text) {
  const key = Math.random().toString(36).slice(2);
  const waiting = line(name, text);
  waiting.classList.add("waiting");
  waiting.setAttribute("aria-hidden", "true");
  unsent.set(key, { text, room: channel(), data: JSON.stringify({ from: name, text, key }), waiting, over: null });
  if (!behind) publish(key);
}

function publish(key) {
  const message = unsent.get(key);
  message.over = socket;
  ask({ type: "publish", channel: message.room, data: message.data, ref: key });
}

function settle(key) {
  const message = unsent.get(key);
  message?.waiting.remove();
  unsent.delete(key);
  return message;
}

// ---- Rooms

function enterRoom(next) {
  const old = channel();
  if (next === room) return;
  room = next;
  clear();
  if (socket?.readyState === WebSocket.OPEN) {
    behind = true;
    ask({ type: "unsubscribe", channel: old });
    ask({ type: "subscribe", channel: channel(), since: "*", presence: true });
  } else if (name !== null) {
    connect();
  }
}

function roomInUrl() {
  const asked = new URLSearchParams(location.search).get("room");
  return asked !== null && ROOM.test(asked) ? asked : ROOMS[0];
}

const urlOf = (wanted) => `?room=${encodeURIComponent(wanted)}`;

function goTo(wanted) {
  if (wanted !== room) history.pushState(null, "", urlOf(wanted));
  enterRoom(wanted);
}

function clear() {
  last = null;
  at("messages").replaceChildren();
  at("messages").setAttribute("aria-busy", "true");
  at("room-title").textContent = room;
  document.title = `${room}: mod_websocket chat`;
  at("curl").textContent = `curl -d hello '${location.origin}/publish?channel=chat/${encodeURIComponent(room)}'`;
  members.clear();
  showMembers();
  const links = [...new Set([...ROOMS, room])].map((each) => {
    const link = element("a", "", each);
    link.href = urlOf(each);
    if (each === room) link.setAttribute("aria-current", "page");
    return link;
  });
  at("rooms").replaceChildren(...links.map((link) => {
    const entry = document.createElement("li");
    entry.append(link);
    return entry;
  }));
}

// ---- The page. What others have written becomes textContent, and never markup.

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function append(entry) {
  const list = at("messages");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.append(entry);
  while (list.children.length > LINES) list.firstChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function line(from, text) {
  const entry = element("li", from === undefined ? "nobody" : from === name ? "own" : "", "");
  if (from !== undefined) entry.append(element("span", "from", from), " ");
  entry.append(element("span", "text", text));
  append(entry);
  return entry;
}

const note = (text) => append(element("li", "note", text));

const show = (text) => {
  if (at("status").textContent !== text) at("status").textContent = text;
};

function showMembers() {
  const sorted = [...members].sort((one, other) => one.localeCompare(other));
  at("members").replaceChildren(...sorted.map((member) => {
    const entry = element("li", "", member);
    if (member === name) entry.append(" ", element("span", "hint", "you"));
    return entry;
  }));
  at("members").classList.remove("stale");
}

function onSubmit(id, action) {
  at(id).addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    action();
  });
}

function enter() {
  name = at("name").value.trim();
  if (name === "") {
    name = null;
    return;
  }
  // Of this tab: another one may be somebody else.
  sessionStorage.setItem("name", name);
  at("join").hidden = true;
  at("chat").hidden = false;
  clear();
  connect();
  at("text").focus();
}

function leave() {
  drop(1000);
  name = null;
  sessionStorage.removeItem("name");
  unsent.clear();
  at("chat").hidden = true;
  at("join").hidden = false;
  at("name").focus();
}

onSubmit("join-form", enter);
onSubmit("room-form", () => {
  goTo(at("other-room").value);
  at("other-room").value = "";
});
onSubmit("message-form", () => {
  const text = at("text").value.trim();
  if (text !== "") say(text);
  at("text").value = "";
});
at("leave").addEventListener("click", leave);
at("reconnect").addEventListener("click", connect);
at("rooms").addEventListener("click", (click) => {
  const link = click.target.closest("a");
  if (!link || click.ctrlKey || click.metaKey || click.shiftKey) return;
  click.preventDefault();
  goTo(link.textContent);
});
addEventListener("popstate", () => enterRoom(roomInUrl()));

room = roomInUrl();
clear();
at("name").value = sessionStorage.getItem("name") ?? "";
if (at("name").value !== "") enter();
