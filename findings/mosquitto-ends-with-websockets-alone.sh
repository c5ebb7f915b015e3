#!/usr/bin/env bash
# Versions: mosquitto 2.0.11-1.2+deb12u2 of Debian 12, with its libwebsockets 4.1.6. Needs apt-get.
# Guess:    A broker whose only listener speaks WebSockets serves it.
# Seen:     It ends with "Unable to start any listening sockets": listeners for WebSockets are not counted. It needs one of plain MQTT beside
#           them, a Unix socket for instance.
set -uo pipefail
folder=$(mktemp -d) || exit 2
broker=
trap '[ -z "$broker" ] || kill "$broker" 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder" || exit 2
chmod 755 .
apt-get download mosquitto=2.0.11-1.2+deb12u2 libwebsockets17 libcjson1 libdlt2 libev4 libuv1 >apt.log 2>&1 || { cat apt.log; exit 2; }
for package in *.deb; do dpkg -x "$package" root || exit 2; done
LD_LIBRARY_PATH=$(echo root/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH
port=$((20000 + RANDOM % 10000))
# try NAME LINE…: what becomes of a broker with a listener for WebSockets, and these lines before it.
try() {
    local name=$1
    shift
    printf '%s\n' "user $(id -un)" "$@" "listener $port" 'bind_interface lo' 'socket_domain ipv4' 'protocol websockets' >"$name.conf"
    root/usr/sbin/mosquitto -c "$name.conf" >"$name.log" 2>&1 &
    broker=$!
    sleep 1
    kill "$broker" 2>/dev/null && seen=runs || seen=$(grep -o 'Error: .*' "$name.log")
    wait "$broker"
    broker=
    echo "$name: $seen"
}
try alone
alone=$seen
try beside "listener 0 $folder/own.sock"
[ "$alone" = "Error: Unable to start any listening sockets, exiting." ] && [ "$seen" = runs ]
