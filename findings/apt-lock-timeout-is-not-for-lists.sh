#!/usr/bin/env bash
# Versions: apt 2.6.1 of Debian 12. Needs apt-get and Python 3.
# Guess:    "-o DPkg::Lock::Timeout=60" lets apt-get wait for another apt-get.
# Seen:     It waits so for dpkg's lock, of "apt-get install". "apt-get update" fails at once while another one holds the lock of the package lists, whatever
#           the timeout is. Who wants to wait has to try again (as scripts/need-packages does).
set -uo pipefail
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
command -v apt-get >/dev/null && command -v python3 >/dev/null || { echo "needs apt-get and python3"; exit 2; }
apt-get --version | head -n 1
# All directories and locks are the folder's, and there is nothing to fetch.
mkdir -p lists/partial archives/partial dpkg
touch dpkg/status extended_states
cat >apt.conf <<CONF
Dir::State "$folder";
Dir::State::lists "$folder/lists";
Dir::State::status "$folder/dpkg/status";
Dir::Cache "$folder";
Dir::Cache::archives "$folder/archives";
Dir::Log "$folder";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "/dev/null";
DPkg::Lock::Timeout "60";
CONF
export APT_CONFIG=$folder/apt.conf LC_ALL=C
# while_held LOCK ARGUMENT…: what apt-get says while another process holds the lock, for two seconds.
while_held() {
    local lock=$1
    shift
    python3 -c 'import fcntl, sys, time
with open(sys.argv[1], "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    open("held", "w").close()
    time.sleep(2)' "$lock" &
    until [ -e held ]; do sleep 0.05; done
    apt-get -q "$@" 2>&1
    echo "exit status $?"
    wait
    rm held
}
update=$(while_held lists/lock update)
install=$(while_held dpkg/lock-frontend --fix-broken install)
printf 'update, while the lists are locked:\n%s\n\ninstall, while dpkg is locked:\n%s\n' "$update" "$install"
[[ $update == *"Could not get lock"*"exit status 100" ]] && [[ $install == *"exit status 0" ]]
