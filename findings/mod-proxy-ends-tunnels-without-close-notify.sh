#!/usr/bin/env bash
# Versions: httpd 2.4.71 (Debian's apache2-bin 2.4.71-1~deb12u1), OpenSSL 3. Needs python3, openssl, and libapr1 with libaprutil1.
# Guess:    a WebSocket over TLS behind ProxyPass ends as a page does: where the server behind closes, the client gets a close_notify.
# Seen:     the page ends with one, the tunnel does not: mod_proxy passes an end on by shutdown(2) of the socket, below TLS. To a strict client that is
#           a connection that was cut off (rustls: "peer closed connection without sending TLS close_notify"), whatever Close frame came before it.
set -uo pipefail
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
apt-get download apache2-bin=2.4.71-1~deb12u1 >apt.log 2>&1 && dpkg -x apache2-bin_*.deb root || { cat apt.log; exit 2; }
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out certificate.pem 2>openssl.log || { cat openssl.log; exit 2; }
chmod 755 .
echo page >index.html
cat >run.py <<'P'
import os, socket, ssl, subprocess, sys, threading, time

back = socket.create_server(("127.0.0.1", 0))

def serve():
    while True:
        peer, _ = back.accept()
        head = b""
        while b"\r\n\r\n" not in head:
            head += peer.recv(4096)
        peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x88\x02\x03\xe8")
        peer.close()

threading.Thread(target=serve, daemon=True).start()
probe = socket.create_server(("127.0.0.1", 0))
port = probe.getsockname()[1]
probe.close()
here = os.getcwd()
load = "".join(f"LoadModule {name}_module {here}/root/usr/lib/apache2/modules/mod_{name}.so\n" for name in ["mpm_event", "authz_core", "socache_shmcb", "ssl", "proxy", "proxy_http"])
with open("httpd.conf", "w") as conf:
    conf.write(f"ServerRoot {here}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile pid\nDefaultRuntimeDir {here}\nErrorLog error.log\n{load}"
               + ("User www-data\nGroup www-data\n" if os.getuid() == 0 else "")
               + f"DocumentRoot {here}\nSSLEngine On\nSSLSessionCache shmcb:{here}/tls(512000)\nSSLCertificateFile certificate.pem\nSSLCertificateKeyFile key.pem\n"
               + f"ProxyPass /ws ws://127.0.0.1:{back.getsockname()[1]}/\n")
httpd = subprocess.Popen(["root/usr/sbin/apache2", "-f", f"{here}/httpd.conf", "-DFOREGROUND"])
tls = ssl._create_unverified_context()

def ask(path, more=""):
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    client = tls.wrap_socket(plain, suppress_ragged_eofs=False)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode())
    said = b""
    try:
        while piece := client.recv(4096):
            said += piece
        return said, "with a close_notify"
    except ssl.SSLEOFError:
        return said, "without a close_notify"

page = (b"", "")
for _ in range(50):
    try:
        page = ask("/index.html", "Connection: close\r\n")
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
tunnel = ask("/ws", upgrade)
httpd.terminate()
httpd.wait()
for name, (said, end) in [("page", page), ("tunnel", tunnel)]:
    print(f"{name}: {said.split(chr(13).encode())[0].decode()}; ended {end}")
if b" 200 " not in page[0] or b" 101 " not in tunnel[0]:
    sys.exit(2)
sys.exit(0 if page[1].startswith("with a") and tunnel[1].startswith("without") else 1)
P
python3 run.py
