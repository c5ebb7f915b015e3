#!/usr/bin/env bash
# Versions: ws4py 0.6.0 (PyPI), as a client.
# Guess:    a client that is no browser sends no Origin, or the http:// origin that a browser on that site would send (RFC 6454).
# Seen:     it sends Origin: ws://HOST:PORT, the scheme of the socket itself. A server that compares with http://HOST refuses its own site's
#           scripts with 403.
set -uo pipefail
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" && "$folder/venv/bin/python3" -m pip install --quiet --disable-pip-version-check ws4py==0.6.0 || exit 2
cat >"$folder/run.py" <<'P'
import socket, sys, threading
from ws4py.client.threadedclient import WebSocketClient

listener = socket.create_server(("127.0.0.1", 0))
port, head = listener.getsockname()[1], []


def serve():
    peer, _ = listener.accept()
    head.append(peer.recv(4096).decode())
    peer.close()


thread = threading.Thread(target=serve)
thread.start()
try:
    WebSocketClient(f"ws://127.0.0.1:{port}/").connect()
except Exception:  # The server answers nothing.
    pass
thread.join(10)
origin = [line for line in head[0].split("\r\n") if line.lower().startswith("origin:")]
print(*origin)
sys.exit(0 if origin == [f"Origin: ws://127.0.0.1:{port}"] else 1)
P
"$folder/venv/bin/python3" "$folder/run.py"
