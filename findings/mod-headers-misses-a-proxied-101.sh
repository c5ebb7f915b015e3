#!/usr/bin/env bash
# Versions: httpd 2.4.71 (Debian's apache2-bin 2.4.71-1~deb12u1), ws 8.23.0 as the back end (npm). Needs node, curl, and libapr1 with libaprutil1.
# Guess:    "Header always set" reaches every answer of a location, as its documentation says: pages, errors, and the 101 of a WebSocket behind ProxyPass.
# Seen:     it reaches the page and not the 101: mod_proxy_http sends that as an interim response, which no output filter sees. The same with
#           "Header set". Security headers and cookies that are set there are missing on every WebSocket.
set -uo pipefail
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
apt-get download apache2-bin=2.4.71-1~deb12u1 >apt.log 2>&1 && dpkg -x apache2-bin_*.deb root || { cat apt.log; exit 2; }
npm init -y >npm.log 2>&1 && npm install --silent ws@8.23.0 >>npm.log 2>&1 || { cat npm.log; exit 2; }
chmod 755 .
mkdir cache
[ "$(id -u)" -ne 0 ] || chown www-data . cache
cat >run.js <<'J'
const http = require('http'), net = require('net'), { spawn, execFileSync } = require('child_process'), fs = require('fs'), { WebSocketServer } = require('ws');
const free = () => new Promise(done => { const probe = net.createServer().listen(0, '127.0.0.1', () => { const { port } = probe.address(); probe.close(() => done(port)); }); });
(async () => {
  const back = http.createServer((request, response) => response.end('page\n'));
  new WebSocketServer({ server: back });
  await new Promise(done => back.listen(0, '127.0.0.1', done));
  const port = await free(), here = process.cwd(), modules = `${here}/root/usr/lib/apache2/modules`;
  const load = ['mpm_event', 'authz_core', 'proxy', 'proxy_http', 'headers'].map(name => `LoadModule ${name}_module ${modules}/mod_${name}.so\n`).join('');
  fs.writeFileSync('httpd.conf', `ServerRoot ${here}\nServerName localhost\nListen 127.0.0.1:${port}\nPidFile pid\nDefaultRuntimeDir ${here}\nErrorLog error.log\n${load}` +
    (process.getuid() === 0 ? "User www-data\nGroup www-data\n" : '') +
    `ProxyPass / http://127.0.0.1:${back.address().port}/ upgrade=websocket\nHeader always set X-Always yes\nHeader set X-Success yes\n`);
  const httpd = spawn('root/usr/sbin/apache2', ['-f', `${here}/httpd.conf`, '-DFOREGROUND'], { stdio: 'inherit' });
  const ask = (...more) => new Promise(done => {
    const curl = spawn('curl', ['-sS', '-i', '-m', '2', ...more, `http://127.0.0.1:${port}/`]);
    let text = '';
    curl.stdout.on('data', piece => text += piece);
    curl.on('close', () => done(text.split('\r\n\r\n')[0].split('\r\n')));
  });
  let page = [];
  for (let i = 0; i < 50 && !/200/.test(page[0]); i++) { await new Promise(done => setTimeout(done, 100)); page = await ask(); }
  const upgrade = await ask(...['Upgrade: websocket', 'Connection: Upgrade', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='].flatMap(line => ['-H', line]));
  httpd.kill();
  await new Promise(done => httpd.on('close', done));
  const set = lines => lines.filter(line => /^X-/.test(line)).sort().join(', ') || 'none';
  console.log(`page: ${page[0]}; lines set by mod_headers: ${set(page)}`);
  console.log(`handshake: ${upgrade[0]}; lines set by mod_headers: ${set(upgrade)}`);
  if (!/ 200/.test(page[0]) || !/ 101/.test(upgrade[0])) process.exit(2);
  process.exit(set(page) === 'X-Always: yes, X-Success: yes' && set(upgrade) === 'none' ? 0 : 1);
})();
J
node run.js
