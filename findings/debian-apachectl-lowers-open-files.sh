#!/usr/bin/env bash
# Versions: apachectl of Debian's apache2 2.4.71-1~deb12u1, as systemd's unit apache2.service calls it. Needs root and apt-get.
# Guess:    LimitNOFILE= of the unit, or a higher hard limit in a container, decides how many files httpd may open.
# Seen:     apachectl runs "ulimit -n 8192" first, which sets the soft and the hard limit: whatever the unit allows, httpd starts with 8192 of both, and
#           nothing in httpd can raise the hard one again. Only APACHE_ULIMIT_MAX_FILES in /etc/apache2/envvars changes it.
set -uo pipefail
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
[ "$(id -u)" -eq 0 ] || { echo "needs root: apachectl sets the limit for root alone"; exit 2; }
apt-get download apache2=2.4.71-1~deb12u1 >apt.log 2>&1 && dpkg -x apache2_*.deb root || { cat apt.log; exit 2; }
mkdir run
# Stands in httpd's place, and tells the limits that it was started with.
printf '#!/bin/sh\necho "soft $(ulimit -Sn), hard $(ulimit -Hn)"\n' >httpd
chmod 755 httpd
limits() { # limits NAME=VALUE…: what httpd is started with where the unit allows 20000
    (ulimit -n 20000 && env APACHE_CONFDIR="$folder/root/etc/apache2" APACHE_HTTPD="$folder/httpd" APACHE_RUN_DIR="$folder/run" \
        APACHE_LOCK_DIR="$folder/run" APACHE_LOG_DIR="$folder/run" "$@" sh root/usr/sbin/apachectl start 2>&1)
}
usual=$(limits) || exit 2
raised=$(limits APACHE_ULIMIT_MAX_FILES='ulimit -n 15000') || exit 2
echo "allowed 20000, nothing said: $usual"
echo "allowed 20000, APACHE_ULIMIT_MAX_FILES='ulimit -n 15000': $raised"
[ "$usual" = "soft 8192, hard 8192" ] && [ "$raised" = "soft 15000, hard 15000" ]
