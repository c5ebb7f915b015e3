#!/usr/bin/env bash
# Versions: httpd 2.4.71 (Debian's apache2-bin 2.4.71-1~deb12u1), event MPM. Needs python3, curl, and libapr1 with libaprutil1.
# Guess:    after GracefulShutdownTimeout a graceful stop becomes a stop: requests that still run are cut off, and httpd ends.
# Seen:     httpd ends ten seconds after the timeout. A child that has been told to end gracefully no longer hears that it is to end at once; its SIGTERM
#           does nothing, and it is killed nine seconds later. `docker stop`, which kills after ten seconds, comes before that.
set -uo pipefail
folder=$(mktemp -d) || exit 2
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder" || exit 2
apt-get download apache2-bin=2.4.71-1~deb12u1 >apt.log 2>&1 && dpkg -x apache2-bin_*.deb root || { cat apt.log; exit 2; }
chmod 755 .
# Accepts, and answers nothing; its first line is two free ports, its own and one for httpd.
python3 -u -c '
import socket, time
back, free = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
ports = back.getsockname()[1], free.getsockname()[1]
free.close()
print(*ports)
time.sleep(60)' >ports &
for _ in $(seq 50); do [ ! -s ports ] || break; sleep 0.1; done
read -r back port <ports || exit 2
{
    printf 'ServerRoot %s\nServerName localhost\nListen 127.0.0.1:%s\nPidFile pid\nDefaultRuntimeDir %s\nErrorLog error.log\n' "$folder" "$port" "$folder"
    for name in mpm_event authz_core proxy proxy_http; do echo "LoadModule ${name}_module root/usr/lib/apache2/modules/mod_$name.so"; done
    [ "$(id -u)" -ne 0 ] || printf 'User www-data\nGroup www-data\n'
    printf 'GracefulShutdownTimeout 1\nProxyPass /slow http://127.0.0.1:%s/\n' "$back"
} >httpd.conf
setsid root/usr/sbin/apache2 -f "$folder/httpd.conf" -DFOREGROUND &
httpd=$!
for _ in $(seq 50); do curl -s -o page "http://127.0.0.1:$port/" && break; sleep 0.1; done
[ -s page ] || { cat error.log; exit 2; }
curl -s -m 60 "http://127.0.0.1:$port/slow" >/dev/null &
sleep 1
began=$SECONDS
kill -WINCH "$httpd"
wait "$httpd"
took=$((SECONDS - began))
echo "GracefulShutdownTimeout 1, one request that does not end: httpd ends after $took s"
grep -E 'AH0004[56]|AH00492' error.log
[ "$took" -ge 9 ]
