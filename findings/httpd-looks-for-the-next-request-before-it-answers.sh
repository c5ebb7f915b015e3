#!/usr/bin/env bash
# Versions: httpd 2.4.71 of Debian, MPM event. Needs apache2 with mod_mpm_event, mod_authz_core and mod_status, strace, Python 3.
# Guess:    A worker sends an answer, and then looks whether the next request of a kept connection is there.
# Seen:     It does so for a file. What a handler writes from memory waits in the filters until the connection was read: that finds nothing, since the client
#           waits for the answer. So the connection goes to the listener after each answer, and every request wakes two threads. A handler that flushes is spared
#           that where the client is quick.
set -uo pipefail
folder=$(mktemp -d) || exit 2
httpd=$(command -v apache2 || command -v httpd) && command -v strace >/dev/null && command -v python3 >/dev/null || { echo "needs httpd, strace, Python 3"; exit 2; }
modules=/usr/lib/apache2/modules
[ -e "$modules/mod_status.so" ] || { echo "needs the modules of Debian's httpd"; exit 2; }
"$httpd" -v | head -n 1
mkdir "$folder/htdocs" && echo "a page" >"$folder/htdocs/page" && chmod -R a+rX "$folder"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$folder/conf" <<CONF
ServerRoot "$folder"
DefaultRuntimeDir "$folder"
PidFile "$folder/pid"
ServerName localhost
Listen 127.0.0.1:$port
LoadModule mpm_event_module $modules/mod_mpm_event.so
LoadModule authz_core_module $modules/mod_authz_core.so
LoadModule status_module $modules/mod_status.so
ServerLimit 1
StartServers 1
DocumentRoot "$folder/htdocs"
ErrorLog "$folder/log"
<Location /status>
SetHandler server-status
</Location>
CONF
[ "$(id -u)" = 0 ] && printf 'User nobody\nGroup nogroup\n' >>"$folder/conf"
strace -f -qq -e trace=read,writev -o "$folder/calls" "$httpd" -f "$folder/conf" -DFOREGROUND >/dev/null 2>&1 &
tracer=$!
trap 'kill "$(cat "$folder/pid" 2>/dev/null)" 2>/dev/null; wait "$tracer"; rm -rf "$folder"' EXIT
for path in /page "/status?auto"; do
    python3 - "$port" "$path" <<'PYTHON'
import http.client, sys, time
for _ in range(100):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
        connection.connect()
        break
    except OSError:
        time.sleep(0.1)
for _ in range(10):
    connection.request("GET", sys.argv[2])
    assert connection.getresponse().read()
PYTHON
done
# What the thread that has read a request does next: writes the answer, or reads the connection once more.
next_call() {
    awk -v path="GET $1 " 'index($0, path) { thread = $1; next } thread == $1 { print ($2 ~ /^writev/ ? "answers" : /EAGAIN/ ? "looks" : "other"); thread = "" }' \
        "$folder/calls" | sort | uniq -c | sort -rn | awk 'NR == 1 { print $2 }'
}
file=$(next_call /page) memory=$(next_call "/status?auto")
printf 'a file: it %s first\nmod_status: it %s first\n' "$file" "$memory"
[ "$file" = answers ] && [ "$memory" = looks ]
