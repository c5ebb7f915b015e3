"use strict";

const STATES = ["CONNECTING", "OPEN", "CLOSING", "CLOSED"];
const LOG_LINES = 500;     // what the log keeps
const TEXT_SHOWN = 2000;   // characters of a message the log shows
const BYTES_SHOWN = 48;    // bytes of a binary message the log shows

const at = (id) => document.getElementById(id);

let socket = null;

// ---- The log

function log(kind, label, text, size = "") {
  const list = at("log");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;

  const now = new Date();
  const time = document.createElement("time");
  time.dateTime = now.toISOString();
  time.textContent = now.toTimeString().slice(0, 8) + "." + String(now.getMilliseconds()).padStart(3, "0");

  const line = document.createElement("li");
  line.className = kind;
  line.append(time, " ", span("kind", label), " ", span("text", text));
  if (size) line.lastChild.append(" ", span("size", size));

  list.append(line);
  while (list.children.length > LOG_LINES) list.firstChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function span(className, text) {
  const element = document.createElement("span");
  element.className = className;
  element.textContent = text;
  return element;
}

const note = (label, text) => log("event", label, text);
const error = (text) => log("error", "error", text);

const count = (n, unit) => `${n} ${unit}${n === 1 ? "" : "s"}`;
const utf8 = (text) => new TextEncoder().encode(text);

function logText(kind, text) {
  const shown = text.length > TEXT_SHOWN ? text.slice(0, TEXT_SHOWN) + "…" : text;
  log(kind, kind, shown, `text, ${count(utf8(text).length, "byte")}`);
}

function logBytes(kind, bytes, type) {
  const hex = Array.from(bytes.subarray(0, BYTES_SHOWN), (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  log(kind, kind, hex + (bytes.length > BYTES_SHOWN ? " …" : ""), `binary (${type}), ${count(bytes.length, "byte")}`);
}

// ---- What the socket says of itself

function show() {
  const state = socket ? socket.readyState : null;
  set("ready-state", state === null ? "no socket yet" : `${state} ${STATES[state]}`);
  at("ready-state").dataset.state = state ?? "none";
  set("buffered-amount", String(socket ? socket.bufferedAmount : 0));
  set("protocol", (socket && socket.protocol) || "none");
  set("extensions", (socket && socket.extensions) || "none");

  const live = state !== null && state !== WebSocket.CLOSED;
  forNow("connect", !live);
  forNow("close", live);
  forNow("send", state === WebSocket.OPEN);
  forNow("send-binary", state === WebSocket.OPEN);
}

function set(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

function forNow(id, possible) {
  at(id).setAttribute("aria-disabled", String(!possible));
}

// No event tells that bufferedAmount has changed.
setInterval(show, 100);

// ---- Connecting and closing

function openSocket() {
  if (socket && socket.readyState !== WebSocket.CLOSED) {
    error("There is a socket already: close it first.");
    return;
  }
  const url = at("url").value.trim();
  const protocols = at("protocols").value.split(/[\s,]+/).filter(Boolean);
  let opened;
  try {
    opened = protocols.length > 0 ? new WebSocket(url, protocols) : new WebSocket(url);
  } catch (refused) {
    error(refused.message);
    return;
  }
  socket = opened;
  socket.binaryType = at("binary-type").value;
  set("close-info", "none yet");
  note("connect", opened.url + (protocols.length > 0 ? ` as ${protocols.join(", ")}` : ""));

  opened.onopen = () => {
    note("open", opened.protocol ? `subprotocol ${opened.protocol}` : "no subprotocol");
    show();
  };
  opened.onmessage = ({ data }) => received(data);
  opened.onerror = () => {
    error("The browser tells a page nothing more; its console and httpd's error log may.");
    show();
  };
  opened.onclose = ({ code, reason, wasClean }) => {
    const told = `code ${code}, reason ${reason ? `“${reason}”` : "none"}, wasClean ${wasClean}`;
    set("close-info", told);
    note("close", told);
    show();
  };
  show();
}

function closeSocket() {
  if (!socket || socket.readyState === WebSocket.CLOSED) {
    error("There is no open socket to close.");
    return;
  }
  const typed = at("close-code").value.trim();
  const reason = at("close-reason").value;
  if (typed !== "" && !/^\d+$/.test(typed)) {
    error(`The close code “${typed}” is not a number.`);
    return;
  }
  try {
    if (typed !== "") socket.close(Number(typed), reason);
    else if (reason !== "") socket.close(undefined, reason);
    else socket.close();
    note("closing", typed === "" ? "without a code" : `code ${typed}`);
  } catch (refused) {
    error(refused.message);
  }
  show();
}

// ---- Messages

function send(data, logged) {
  if (!socket || socket.readyState !== WebSocket.OPEN) {
    error("Not sent: there is no open socket.");
    return;
  }
  try {
    socket.send(data);
    logged();
  } catch (refused) {
    error(refused.message);
  }
  show();
}

function sendText() {
  const text = at("message").value;
  send(text, () => logText("sent", text));
}

function sendBinary() {
  const bytes = utf8(at("message").value);
  const blob = at("binary-type").value === "blob";
  send(blob ? new Blob([bytes]) : bytes.buffer, () => logBytes("sent", bytes, blob ? "Blob" : "ArrayBuffer"));
}

// A Blob gives its bytes later, and others may arrive meanwhile: the log shows messages in the order they came.
let shown = Promise.resolve();

function received(data) {
  const bytes = data instanceof Blob ? data.arrayBuffer() : data;
  shown = shown.then(async () => {
    if (typeof data === "string") logText("received", data);
    else logBytes("received", new Uint8Array(await bytes), data instanceof Blob ? "Blob" : "ArrayBuffer");
  }).catch((failed) => error(failed.message));
}

// ---- The page

const scheme = location.protocol === "https:" ? "wss" : "ws";
const server = location.host ? `${scheme}://${location.host}` : "ws://localhost:9998";

function onSubmit(id, action) {
  at(id).addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    action();
  });
}

onSubmit("connect-form", openSocket);
onSubmit("close-form", closeSocket);
onSubmit("message-form", sendText);
at("send-binary").addEventListener("click", sendBinary);
at("message").addEventListener("keydown", (pressed) => {
  if (pressed.key === "Enter" && (pressed.ctrlKey || pressed.metaKey)) {
    pressed.preventDefault();
    sendText();
  }
});
at("binary-type").addEventListener("change", ({ target }) => {
  if (socket) socket.binaryType = target.value;
});
at("clear-log").addEventListener("click", () => at("log").replaceChildren());
for (const button of document.querySelectorAll("[data-path]")) {
  button.addEventListener("click", () => {
    at("url").value = server + button.dataset.path;
    at("url").focus();
  });
}

at("url").value = server + "/echo";
show();
