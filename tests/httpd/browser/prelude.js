// What the scripts of the browser tests have in common; chromium.rs puts it before each of them.
"use strict";

/** The URL of a WebSocket on the server that sent the page. */
const ws = (path) => `${location.protocol.replace("http", "ws")}//${location.host}${path}`;

/** What `action` returns, or the kind and the name of what it throws. */
function attempt(action) {
  try {
    return action();
  } catch (thrown) {
    return `${thrown.constructor.name} ${thrown.name}`;
  }
}

/** Returns once `condition` holds. No event tells of a change in bufferedAmount, or in a page that others wrote. */
async function until(condition) {
  while (!condition()) await new Promise((resume) => setTimeout(resume, 2));
}

/** The bytes of a Blob, an ArrayBuffer or a view of one. */
async function bytes(data) {
  const buffer = data instanceof Blob ? await data.arrayBuffer() : data;
  return ArrayBuffer.isView(buffer)
    ? new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength)
    : new Uint8Array(buffer);
}

/** Whether the two hold the same bytes. */
async function same(one, other) {
  const [left, right] = [await bytes(one), await bytes(other)];
  return left.length === right.length && left.every((byte, index) => byte === right[index]);
}

/** The data of a message as JSON: a text as it is, binary data by its type and its bytes. */
async function plain(data) {
  return typeof data === "string" ? data : [data.constructor.name, ...(await bytes(data))];
}

/** Writes down every event of a socket, from its construction on. */
class Recorder {
  #events = [];
  #waiting = [];

  constructor(socket) {
    this.socket = socket;
    for (const type of ["open", "message", "error", "close"]) {
      socket.addEventListener(type, (event) => {
        this.#events.push(event);
        this.#waiting = this.#waiting.filter((look) => !look());
      });
    }
  }

  /** Returns when there have been `count` events of this type; throws when there will not be so many. */
  seen(type, count = 1) {
    return new Promise((resolve, reject) => {
      const look = () => {
        const of = (wanted) => this.#events.filter((event) => event.type === wanted).length;
        // A task of its own: by then the other listeners of the event have run.
        if (of(type) >= count) setTimeout(resolve);
        else if (of("close") > 0) {
          this.transcript().then((told) => reject(new Error(`closed: ${JSON.stringify(told)}`)));
        } else return false;
        return true;
      };
      if (!look()) this.#waiting.push(look);
    });
  }

  /** The data of the messages so far. */
  messages() {
    return this.#events.filter(({ type }) => type === "message").map(({ data }) => data);
  }

  /** All events so far: the type, then what the event says. */
  transcript() {
    return Promise.all(this.#events.map(async (event) => {
      if (event.type === "message") return ["message", await plain(event.data)];
      if (event.type === "close") return ["close", event.code, event.reason, event.wasClean];
      return [event.type];
    }));
  }
}

/** A recorded socket. */
const record = (...parameters) => new Recorder(new WebSocket(...parameters));

/** A recorded socket that is open. */
async function open(...parameters) {
  const recorder = record(...parameters);
  await recorder.seen("open");
  return recorder;
}
