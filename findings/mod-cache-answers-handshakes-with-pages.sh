#!/usr/bin/env bash
# Versions: httpd 2.4.71 (Debian's apache2-bin 2.4.71-1~deb12u1), ws 8.23.0 as the back end (npm). Needs node, curl, and libapr1 with libaprutil1.
# Guess:    a request with Upgrade: websocket is none that a cache may answer: it passes mod_cache by and gets its 101.
# Seen:     mod_cache looks at no Upgrade. Once the page of the same URL is stored, the handshake gets that page with 200, with Age, and the back end
#           never hears of it. With "Cache-Control: no-cache" in the handshake, as browsers send it, there is a 101; many other clients do not send it.
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
  const back = http.createServer((request, response) => response.writeHead(200, { 'Content-Type': 'text/html', 'Cache-Control': 'max-age=60' }).end('page\n'));
  new WebSocketServer({ server: back });
  await new Promise(done => back.listen(0, '127.0.0.1', done));
  const port = await free(), here = process.cwd(), modules = `${here}/root/usr/lib/apache2/modules`;
  const load = ['mpm_event', 'authz_core', 'proxy', 'proxy_http', 'cache', 'cache_disk'].map(name => `LoadModule ${name}_module ${modules}/mod_${name}.so\n`).join('');
  fs.writeFileSync('httpd.conf', `ServerRoot ${here}\nServerName localhost\nListen 127.0.0.1:${port}\nPidFile pid\nDefaultRuntimeDir ${here}\nErrorLog error.log\n${load}` +
    (process.getuid() === 0 ? "User www-data\nGroup www-data\n" : '') +
    `CacheRoot ${here}/cache\nCacheEnable disk /\nProxyPass / http://127.0.0.1:${back.address().port}/ upgrade=websocket\n`);
  const httpd = spawn('root/usr/sbin/apache2', ['-f', `${here}/httpd.conf`, '-DFOREGROUND'], { stdio: 'inherit' });
  const ask = (...more) => new Promise(done => {
    const curl = spawn('curl', ['-sS', '-i', '-m', '2', ...more, `http://127.0.0.1:${port}/`]);
    let text = '';
    curl.stdout.on('data', piece => text += piece);
    curl.on('close', () => done(text.split('\r\n\r\n')[0].split('\r\n')));
  });
  const handshake = ['Upgrade: websocket', 'Connection: Upgrade', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='].flatMap(line => ['-H', line]);
  let before = [];
  for (let i = 0; i < 50 && !/101/.test(before[0]); i++) { await new Promise(done => setTimeout(done, 100)); before = await ask(...handshake); }
  const page = await ask(), after = await ask(...handshake), fresh = await ask(...handshake, '-H', 'Cache-Control: no-cache');
  httpd.kill();
  await new Promise(done => httpd.on('close', done));
  const age = lines => lines.some(line => /^Age:/.test(line)) ? ', from the cache' : '';
  console.log(`handshake before the page is stored: ${before[0]}`);
  console.log(`page: ${page[0]}`);
  console.log(`handshake after that: ${after[0]}${age(after)}`);
  console.log(`handshake with Cache-Control: no-cache: ${fresh[0]}`);
  if (!/ 101/.test(before[0]) || !/ 200/.test(page[0])) process.exit(2);
  process.exit(/ 200/.test(after[0]) && age(after) && / 101/.test(fresh[0]) ? 0 : 1);
})();
J
node run.js
