"""Runs containers of one image as docs/container.md says, and looks at what clients see of them: echo over ws and wss, a
channel across two containers, a graceful restart, a stop.

check.py --engine "COMMAND …" --image IMAGE --redis IMAGE --files DIR --name NAME [--layout apache2|httpd] [--user USER]

The command is docker or one like it; DIR has site.conf, and is mounted at /site.
"""

import argparse
import asyncio
import json
import re
import shlex
import socket as sockets
import ssl
import subprocess
import sys
import time
import urllib.request
from ssl import TLSVersion

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

# Not httpd's 8192, nor what engines give by themselves.
OPEN_FILES = 9999
# After which engines kill, if they are told nothing else; and what docs/container.md tells them.
KILL, GRACE = 10, 30
PATIENCE = 40
# page:secret
LOGIN = b"cGFnZTpzZWNyZXQ="
LAYOUTS = {
    "apache2": {"writes": "/run/apache2", "config": "/etc/apache2/conf-enabled/site.conf", "program": "apache2"},
    "httpd": {"writes": "/usr/local/apache2/logs", "config": "/usr/local/apache2/conf/extra/websocket.conf", "program": "httpd"},
}
# What root's httpd needs to serve as another user.
ROOT_CAPABILITIES = ("SETUID", "SETGID")


class Engine:
    """The command line of a container engine."""

    def __init__(self, command):
        self.command = shlex.split(command)

    def __call__(self, *arguments, check=True):
        done = subprocess.run([*self.command, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise SystemExit(f"{shlex.join(done.args)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done


class Httpd:
    """A container of the image under test."""

    def __init__(self, engine, name, network, options, grace=None):
        self.engine, self.name, self.layout = engine, name, LAYOUTS[options.layout]
        root = options.user in ("0", "root")
        engine(
            "run", "--detach", "--name", name, "--network", network,
            "--read-only", "--tmpfs", f"{self.layout['writes']}:mode=1777", "--cap-drop", "ALL",
            *(f"--cap-add={one}" for one in ROOT_CAPABILITIES if root),
            "--security-opt", "no-new-privileges",
            "--publish", "127.0.0.1::8080", "--publish", "127.0.0.1::8443",
            "--volume", f"{options.files}:/site:ro", "--volume", f"{options.files}/site.conf:{self.layout['config']}:ro",
            *([f"--stop-timeout={grace}"] if grace else []), *(["--user", options.user] if options.user else []),
            *options.run, options.image,
        )  # fmt: skip
        self.ports = {port: self.published(port) for port in (8080, 8443)}

    def published(self, port):
        return int(self.engine("port", self.name, f"{port}/tcp").stdout.split()[0].rpartition(":")[2])

    def websocket(self, path, tls=None):
        if tls is None:
            return connect(f"ws://127.0.0.1:{self.ports[8080]}{path}", proxy=None)
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode, trust.maximum_version = False, ssl.CERT_NONE, tls
        return connect(f"wss://127.0.0.1:{self.ports[8443]}{path}", ssl=trust, proxy=None)

    def inside(self, *command, check=True):
        return self.engine("exec", self.name, *command, check=check)

    def signal(self, name):
        self.engine("kill", "--signal", name, self.name)

    def state(self, field):
        return self.engine("inspect", "--format", "{{.State.%s}}" % field, self.name).stdout.strip()

    def logs(self):
        """What httpd wrote to stdout and to stderr."""
        logs = self.engine("logs", self.name)
        return logs.stdout, logs.stderr

    async def until(self, what, condition):
        until = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > until or self.state("Status") != "running":
                raise SystemExit(f"{self.name}: {what}: not so, state {self.state('Status')}; its log:\n{self.logs()[1]}")
            await asyncio.sleep(0.1)

    async def until_logged(self, text, times=1):
        await self.until(f"{times} times in the log: {text}", lambda: self.logs()[1].count(text) >= times)

    def processes(self):
        """Of all processes inside: name, and the lines of /proc/PID/status and of limits."""
        script = (
            'for p in /proc/[0-9]*; do echo "pid ${p#/proc/}"; cat $p/status 2>/dev/null;'
            ' grep "^Max open files" $p/limits 2>/dev/null; done'
        )
        found = []
        for block in re.split(r"^pid (?=\d+$)", self.inside("sh", "-c", script).stdout, flags=re.M)[1:]:
            number, _, lines = block.partition("\n")
            fields = dict(re.findall(r"^(\w+):\s*(.*)$", lines, flags=re.M))
            limits = re.search(r"^Max open files\s+(\d+)\s+(\d+)", lines, flags=re.M)
            if limits and fields.get("Name") in ("apache2", "httpd", "ws-engine"):
                found.append({"pid": int(number), "files": limits.groups(), **fields})
        return found


def equal(what, found, expected):
    if found != expected:
        raise SystemExit(f"{what}: {found!r}, expected {expected!r}")


async def echo(socket, text):
    await socket.send(text)
    equal("echo", await asyncio.wait_for(socket.recv(), PATIENCE), text)


async def received(socket):
    return await asyncio.wait_for(socket.recv(), PATIENCE)


async def closed(socket):
    """The code of the Close that the server sends, and its reason."""
    try:
        raise SystemExit(f"a message in the place of a Close: {await received(socket)!r}")
    except ConnectionClosed as end:
        return (end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, "")


async def stop(httpd, clients, time_limit):
    """As `docker stop` does it, in that time."""
    began = time.monotonic()
    stopped = asyncio.create_task(asyncio.to_thread(httpd.engine, "stop", httpd.name))
    equal("Close at the stop", await asyncio.gather(*map(closed, clients)), [(1012, "server is stopping")] * len(clients))
    await stopped
    equal("exit status", httpd.state("ExitCode"), "0")
    if time.monotonic() - began >= time_limit:
        raise SystemExit(f"the stop took {time.monotonic() - began:.1f} s")


async def stop_slowly(httpd, client):
    """A request that does not end holds a graceful stop up; the client gets its Close all the same."""
    with sockets.create_connection(("127.0.0.1", httpd.ports[8080]), timeout=PATIENCE) as slow:
        head = b"POST /publish?channel=news HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic %s\r\n" % LOGIN
        # Its 100 says that it has begun.
        slow.sendall(head + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n")
        equal("a slow request", slow.recv(1000)[:12], b"HTTP/1.1 100")
        await stop(httpd, [client], GRACE)


def publish(httpd, text, login):
    request = urllib.request.Request(f"http://127.0.0.1:{httpd.ports[8080]}/publish?channel=news", text.encode(), method="POST")
    request.add_header("Content-Type", "text/plain")
    if login:
        request.add_header("Authorization", f"Basic {LOGIN.decode()}")
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, None


def privileges(httpd, user):
    processes = httpd.processes()
    names = [process["Name"] for process in processes]
    first = next(process for process in processes if process["pid"] == 1)
    equal("PID 1", first["Name"], httpd.layout["program"])
    equal("engines", names.count("ws-engine"), 1)
    if names.count(httpd.layout["program"]) < 2:
        raise SystemExit(f"httpd has no children: {names}")
    root = user in ("0", "root")
    for process in processes:
        what = f"{process['Name']}, process {process['pid']}"
        equal(f"{what}: open files", process["files"], (str(OPEN_FILES),) * 2)
        parent = root and process["pid"] == 1
        equal(f"{what}: is root's", process["Uid"].split()[0] == "0", parent)
        # Bits 6 and 7: CAP_SETGID, CAP_SETUID.
        equal(f"{what}: capabilities", int(process["CapEff"], 16), 0b1100_0000 if parent else 0)
        equal(f"{what}: no new privileges", process["NoNewPrivs"], "1")


def engine_pid(httpd):
    return next(process["pid"] for process in httpd.processes() if process["Name"] == "ws-engine")


async def health(httpd, user):
    probe = ["websocket-healthcheck"]
    equal("the health check", httpd.inside(*probe).returncode, 0)
    engine = str(engine_pid(httpd))
    # As its owner: root without CAP_KILL may not.
    as_owner = ["--user", "www-data" if user in ("", "0") else user, httpd.name, "sh", "-c"]
    httpd.engine("exec", *as_owner, f"kill -STOP {engine}")
    bad = httpd.inside(*probe, check=False).returncode
    httpd.engine("exec", *as_owner, f"kill -CONT {engine}")
    if bad == 0:
        raise SystemExit("an engine that stands still is called healthy")
    await httpd.until("healthy again", lambda: httpd.inside(*probe, check=False).returncode == 0)


async def check(engine, names, network, options):
    one = Httpd(engine, names[0], network, options)
    two = Httpd(engine, names[1], network, options, GRACE)
    for httpd in (one, two):
        await httpd.until_logged("resuming normal operations")
        # Until the first contact with Redis handshakes get 503.
        await httpd.until("contact with Redis", lambda: publish(httpd, "hello", login=True)[0] in (201, 202))
        privileges(httpd, options.user)

    echoes = [await one.websocket("/echo", tls) for tls in (None, TLSVersion.TLSv1_3, TLSVersion.TLSv1_2)]
    for socket in echoes:
        await echo(socket, "Hello")
        await echo(socket, b"\0\xff" * 40_000)
    print("echo by ws and wss", flush=True)

    listeners = [await one.websocket("/news"), await one.websocket("/news", TLSVersion.TLSv1_3), await two.websocket("/news")]
    equal("a publisher without a login", publish(two, "no", login=False)[0], 401)
    equal("a publisher's status", publish(two, "to both", login=True)[0], 201)
    equal("a message in two containers", [await received(socket) for socket in listeners], ["to both"] * 3)
    print("a channel across two containers", flush=True)

    await health(one, options.user)
    print("the health check", flush=True)

    def engine_lines():
        return len(re.findall(rf"\[pid {engine_pid(one)}[:\]]", one.logs()[1]))

    lines = engine_lines()
    one.inside(one.layout["program"], "-t")
    one.signal("USR1")
    await one.until_logged("resuming normal operations", times=2)
    for number, socket in enumerate(echoes):
        await echo(socket, f"after the restart {number}")
    async with one.websocket("/echo") as new:
        await echo(new, "a new one")
    equal("a publisher's status", publish(one, "after the restart", login=True)[0], 201)
    equal("after the restart", [await received(socket) for socket in listeners], ["after the restart"] * 3)
    await one.until("lines of the engine before and after the restart", lambda: 0 < lines < engine_lines())
    privileges(one, options.user)
    print("a graceful restart with open sockets", flush=True)

    await stop(one, [*echoes, *listeners[:2]], KILL)
    equal("a publisher's status", publish(two, "still", login=True)[0], 201)
    equal("a message in the other container", await received(listeners[2]), "still")
    await (stop(two, [listeners[2]], GRACE) if options.user else stop_slowly(two, listeners[2]))
    print("stop with a Close", flush=True)

    for httpd in (one, two):
        out, errors = httpd.logs()
        if '"POST /publish?channel=news HTTP/1.1" 201' not in out or "GET /echo" not in one.logs()[0]:
            raise SystemExit(f"stdout lacks lines of the access log:\n{out}")
        # Of the slow request; of a TLS without a session cache; of an engine that stood still, so that it was late, and so
        # was Redis for it.
        expected = "AH0004[56]|AH01873|WS(0121|0165|0166|0167):"
        severe = r"\[[a-z_0-9]*:(warn|error|crit|alert|emerg)\]"
        unexpected = [line for line in errors.splitlines() if re.search(severe, line) and not re.search(expected, line)]
        equal("lines at warn or above", unexpected, [])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--files", required=True)
    parser.add_argument("--layout", choices=LAYOUTS, default="apache2")
    parser.add_argument("--user", default="")
    parser.add_argument("--name", required=True)
    parser.add_argument("--run-options", default="")
    options = parser.parse_args()
    limit = f"--ulimit=nofile={OPEN_FILES}:{OPEN_FILES}"
    options.run = [limit, *shlex.split(options.run_options)]

    engine = Engine(options.engine)
    network = options.name
    names = [f"{network}-{which}" for which in ("one", "two", "redis")]
    engine("network", "create", network)
    try:
        engine("run", "--detach", "--name", names[2], "--network", network, "--network-alias", "redis",
               *options.run, options.redis)  # fmt: skip
        asyncio.run(check(engine, names, network, options))
    except BaseException:
        for name in names:
            logs = engine("logs", name, check=False)
            print(f"--- {name}\n{logs.stdout}{logs.stderr}", file=sys.stderr)
        raise
    finally:
        for name in names:
            engine("rm", "--force", "--volumes", name, check=False)
        engine("network", "rm", network, check=False)


main()
