#!/usr/bin/env bash
# Versions: Tcl 8.6 and tcllib 1.21 (Debian's tcllib 1.21+dfsg-1), package websocket, as a client. Needs tclsh and apt-get.
# Guess:    the handshake has one Connection line, with Upgrade in it, and Sec-WebSocket-Protocol only where a subprotocol is asked for.
# Seen:     two Connection lines, "close" first and "Upgrade" second, and Sec-WebSocket-Protocol with nothing in it. Who looks at the first Connection line
#           alone takes it for no handshake; who takes an empty list of subprotocols for an error answers 400.
set -uo pipefail
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
command -v tclsh >/dev/null || { echo "needs tclsh (apt-get install tcl)"; exit 2; }
apt-get download tcllib=1.21+dfsg-1 >apt.log 2>&1 && dpkg -x tcllib_*.deb root || { cat apt.log; exit 2; }
cat >client.tcl <<'T'
lappend auto_path [glob root/usr/share/tcltk/tcllib*]
package require websocket
proc on {sock type message} { if {$type in {disconnect error close}} exit }
::websocket::open ws://127.0.0.1:[lindex $argv 0]/ on
after 10000 exit
vwait forever
T
cat >run.py <<'P'
import socket, subprocess, sys

listener = socket.create_server(("127.0.0.1", 0))
listener.settimeout(20)
client = subprocess.Popen(["tclsh", "client.tcl", str(listener.getsockname()[1])], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
peer, _ = listener.accept()
stream = peer.makefile("rb")
lines = [line.decode().rstrip("\r\n") for line in iter(stream.readline, b"\r\n")]
stream.close()
peer.close()
client.kill()
client.wait()
told = [line for line in lines if line.lower().startswith(("connection:", "upgrade:", "sec-websocket-protocol:"))]
print(*told, sep="\n")
connection = [line.split(":", 1)[1].strip().lower() for line in told if line.lower().startswith("connection:")]
protocol = [line.split(":", 1)[1].strip() for line in told if line.lower().startswith("sec-websocket-protocol:")]
sys.exit(0 if connection == ["close", "upgrade"] and protocol == [""] else 1)
P
python3 run.py
