#!/usr/bin/env bash
# Versions: htmx.org 2.0.11, htmx-ext-ws 2.0.4, playwright-core 1.55.0 (npm), ws 8.23.0 as the server; Debian's chromium 156. Needs node.
# Guess:    a page whose server closes with 1001 ("going away", what servers say before a restart) comes back like after any other close.
# Seen:     it comes back after 1006, 1011, 1012 and 1013 only. After 1000, 1001 and 4000 it never tries again: a restart that says 1001 strands
#           every open page until somebody reloads it. A server that wants its pages back says 1012 (service restart).
set -uo pipefail
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
[ -x /usr/bin/chromium ] || { echo "needs /usr/bin/chromium (apt-get install chromium)"; exit 2; }
npm init -y >npm.log 2>&1 && npm install --silent htmx.org@2.0.11 htmx-ext-ws@2.0.4 ws@8.23.0 playwright-core@1.55.0 >>npm.log 2>&1 || { cat npm.log; exit 2; }
cat >run.js <<'J'
const http = require('http'), fs = require('fs'), { WebSocketServer } = require('ws'), { chromium } = require('playwright-core');
const files = { '/htmx.js': 'node_modules/htmx.org/dist/htmx.min.js', '/ws.js': 'node_modules/htmx-ext-ws/dist/ws.min.js' };
const page = '<script src=/htmx.js></script><script src=/ws.js></script><div hx-ext=ws ws-connect=/socket></div>';
const want = { 1000: false, 1001: false, 1006: true, 1011: true, 1012: true, 1013: true, 4000: false };
(async () => {
  let browser;
  try {
    browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-background-networking', '--disable-component-update', '--disable-sync'] });
  } catch (error) { console.log(String(error)); process.exit(2); }
  let same = true;
  for (const [code, returns] of Object.entries(want)) {
    let connections = 0;
    const server = http.createServer((request, response) => {
      const file = files[request.url];
      response.setHeader('content-type', file ? 'text/javascript' : 'text/html');
      response.end(file ? fs.readFileSync(file) : page);
    });
    new WebSocketServer({ server }).on('connection', socket => {
      connections++;
      setTimeout(() => code === '1006' ? socket.terminate() : socket.close(Number(code), 'bye'), 50);
    });
    await new Promise(done => server.listen(0, '127.0.0.1', done));
    const tab = await browser.newPage();
    await tab.goto(`http://127.0.0.1:${server.address().port}/`);
    await new Promise(done => setTimeout(done, 5000));
    await tab.close();
    server.close(); server.closeAllConnections();
    const ok = (connections > 1) === returns && connections > 0;
    same = same && ok;
    console.log(`closed with ${code}: ${connections} connections in 5 seconds${ok ? '' : '  (was different)'}`);
  }
  await browser.close();
  process.exit(same ? 0 : 1);
})();
J
node run.js
