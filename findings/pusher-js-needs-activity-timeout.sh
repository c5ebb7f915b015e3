#!/usr/bin/env bash
# Versions: pusher-js 8.6.0, ws 8.23.0 as the server (npm). Needs node.
# Guess:    activity_timeout in pusher:connection_established may be left out, or be 0 for "no limit": the client has a default of its own.
# Seen:     in both cases it closes the socket with 1000 at once and never tries again, while its state stays "connecting"; with 30 it is connected.
set -uo pipefail
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
npm init -y >npm.log 2>&1 && npm install --silent pusher-js@8.6.0 ws@8.23.0 >>npm.log 2>&1 || { cat npm.log; exit 2; }
cat >run.js <<'J'
const { WebSocketServer } = require('ws'), Pusher = require('pusher-js');
const attempt = data => new Promise(done => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' }, () => {
    let connections = 0;
    const codes = [];
    server.on('connection', socket => {
      connections++;
      socket.send(JSON.stringify({ event: 'pusher:connection_established', data: JSON.stringify(data) }));
      socket.on('close', code => codes.push(code));
    });
    const pusher = new Pusher('key', { wsHost: '127.0.0.1', wsPort: server.address().port, cluster: '', forceTLS: false, enabledTransports: ['ws'] });
    setTimeout(() => {
      const seen = `${connections} connections, closed with [${codes}], state ${pusher.connection.state}`;
      console.log(`${JSON.stringify(data)}: ${seen}`);
      pusher.disconnect();
      server.close();
      done(seen);
    }, 4000);
  });
});
(async () => {
  const seen = [await attempt({ socket_id: '1.2' }), await attempt({ socket_id: '1.2', activity_timeout: 0 }), await attempt({ socket_id: '1.2', activity_timeout: 30 })];
  const lost = /^1 connections, closed with \[1000\]/;
  process.exit(lost.test(seen[0]) && lost.test(seen[1]) && seen[2] === '1 connections, closed with [], state connected' ? 0 : 1);
})();
J
node run.js
