#!/usr/bin/env bash
# Versions: pusher-js 8.6.0, ws 8.23.0 as the server (npm). Needs node and openssl.
# Guess:    with forceTLS, enabledTransports: ['wss'] is the list for a site that has nothing but wss.
# Seen:     with ['wss'] alone it opens no connection at all; its state is "failed". ['ws'] and ['ws', 'wss'] connect, by wss: 'ws' is the name of the transport, and
#           forceTLS decides on TLS.
set -uo pipefail
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
npm init -y >npm.log 2>&1 && npm install --silent pusher-js@8.6.0 ws@8.23.0 >>npm.log 2>&1 || { cat npm.log; exit 2; }
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost 2>/dev/null || exit 2
cat >run.js <<'J'
const https = require('https'), fs = require('fs'), { WebSocketServer } = require('ws'), Pusher = require('pusher-js');
const attempt = enabledTransports => new Promise(done => {
  const server = https.createServer({ key: fs.readFileSync('key.pem'), cert: fs.readFileSync('cert.pem') });
  let connections = 0;
  new WebSocketServer({ server }).on('connection', () => connections++);
  server.listen(0, '127.0.0.1', () => {
    const port = server.address().port;
    const pusher = new Pusher('key', { wsHost: 'localhost', wsPort: port, wssPort: port, cluster: '', forceTLS: true, enabledTransports });
    setTimeout(() => {
      console.log(`enabledTransports ${JSON.stringify(enabledTransports)}: ${connections} connections, state ${pusher.connection.state}`);
      pusher.disconnect();
      server.close(); server.closeAllConnections();
      done(connections);
    }, 3000);
  });
});
(async () => {
  const counts = [await attempt(['wss']), await attempt(['ws']), await attempt(['ws', 'wss'])];
  process.exit(counts[0] === 0 && counts[1] > 0 && counts[2] > 0 ? 0 : 1);
})();
J
NODE_EXTRA_CA_CERTS=cert.pem node run.js
