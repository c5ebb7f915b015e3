#!/usr/bin/env bash
# Versions: nginx 1.22.1, nchan 1.3.6 (Debian's nginx 1.22.1-9+deb12u11, libnginx-mod-nchan 1:1.3.6+dfsg-2). Needs python3 and apt-get.
# Guess:    a text that a client sends in three frames (RFC 6455 section 5.4) is published as one message.
# Seen:     the first frame is published as a message of its own, without what follows, and the publisher's connection is closed. Clients that
#           split long messages (some do from 16 KiB or 64 KiB on) lose them.
set -uo pipefail
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
apt-get download nginx=1.22.1-9+deb12u11 libnginx-mod-nchan=1:1.3.6+dfsg-2 >apt.log 2>&1 || { cat apt.log; exit 2; }
for package in ./*.deb; do dpkg -x "$package" root || exit 2; done
chmod 755 .
cat >run.py <<'P'
import os, socket, subprocess, sys, time

probe = socket.create_server(("127.0.0.1", 0))
port = probe.getsockname()[1]
probe.close()
here = os.getcwd()
temporary = "".join(f"{kind}_temp_path {here}/t;" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
with open("nginx.conf", "w") as file:
    file.write(
        f"load_module {here}/root/usr/lib/nginx/modules/ngx_nchan_module.so; daemon off; pid {here}/pid; error_log {here}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary} server {{ listen 127.0.0.1:{port};\n"
        "location / { nchan_pubsub websocket; nchan_channel_id news; } } }\n"
    )
server = subprocess.Popen(["root/usr/sbin/nginx", "-c", here + "/nginx.conf", "-e", here + "/error.log"])


def connect():
    for _ in range(100):
        try:
            peer = socket.create_connection(("127.0.0.1", port), 5)
            break
        except OSError:
            time.sleep(0.1)
    else:
        print(open("error.log").read())
        sys.exit(2)
    peer.sendall(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += peer.recv(1)
    return peer


def frame(opcode, final, payload):
    return bytes([(0x80 if final else 0) | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def read(peer):
    seen = b""
    peer.settimeout(2)
    try:
        while piece := peer.recv(4096):
            seen += piece
    except TimeoutError:
        pass
    return seen


try:
    subscriber, publisher = connect(), connect()
    time.sleep(0.5)
    publisher.sendall(frame(1, False, b"Hel") + frame(0, False, b"lo ") + frame(0, True, b"you"))
    heard, answered = read(subscriber), read(publisher)
    print("the subscriber reads", heard)
    print("the publisher reads", answered)
finally:
    server.terminate()
    server.wait()
sys.exit(0 if heard.startswith(b"\x81\x03Hel") and b"lo " not in heard and b"\x88" in answered else 1)
P
python3 run.py
