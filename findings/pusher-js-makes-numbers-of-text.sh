#!/usr/bin/env bash
# Versions: pusher-js 8.6.0, ws 8.23.0 as the server (npm). Needs node.
# Guess:    an event's data is a string in the protocol, so that what a publisher sends as a text arrives as that text.
# Seen:     the client parses every such string as JSON where it can. The text 12345678901234567890 arrives as the number
#           12345678901234567000, 1e3 as 1000, " 7 " as 7; "true" becomes a boolean; 0x10 stays a text. An id that is only digits must travel inside an
#           object, in quotes.
set -uo pipefail
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
npm init -y >npm.log 2>&1 && npm install --silent pusher-js@8.6.0 ws@8.23.0 >>npm.log 2>&1 || { cat npm.log; exit 2; }
cat >run.js <<'J'
const { WebSocketServer } = require('ws'), Pusher = require('pusher-js');
const texts = ['12345678901234567890', '1e3', ' 7 ', 'true', '0x10', '{"id":"12345678901234567890"}'];
const want = ['number 12345678901234567000', 'number 1000', 'number 7', 'boolean true', 'string "0x10"', 'object {"id":"12345678901234567890"}'];
const seen = [];
const server = new WebSocketServer({ port: 0, host: '127.0.0.1' }, () => {
  server.on('connection', socket => {
    const say = (event, data, channel) => socket.send(JSON.stringify({ event, data, channel }));
    say('pusher:connection_established', JSON.stringify({ socket_id: '1.2', activity_timeout: 30 }));
    socket.on('message', message => {
      if (JSON.parse(message).event !== 'pusher:subscribe') return;
      say('pusher_internal:subscription_succeeded', '{}', 'news');
      for (const text of texts) say('item', text, 'news');
    });
  });
  const pusher = new Pusher('key', { wsHost: '127.0.0.1', wsPort: server.address().port, cluster: '', forceTLS: false, enabledTransports: ['ws'] });
  pusher.subscribe('news').bind('item', data => {
    const shown = typeof data === 'number' ? String(data) : JSON.stringify(data);
    console.log(`${JSON.stringify(texts[seen.length])} arrives as ${typeof data} ${shown}`);
    seen.push(`${typeof data} ${shown}`);
    if (seen.length === texts.length) process.exit(JSON.stringify(seen) === JSON.stringify(want) ? 0 : 1);
  });
  setTimeout(() => process.exit(1), 10000);
});
J
node run.js
