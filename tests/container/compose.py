"""Starts compose.yaml, publishes through its page in PHP, and listens at both httpds.

compose.py COMMAND…, which is `docker compose` or one like it; to be run beside compose.yaml.
"""

import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

PATIENCE = 30
SITE = "http://localhost:8080"


def compose(*arguments, check=True):
    environment = {**os.environ, "PUBLISH_PASSWORD": "a secret"}
    command = [*sys.argv[1:], "--project-name", "mod-websocket-test", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    if check and done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def ask(url, body=None, origin=None):
    request = urllib.request.Request(url, body, headers={"Origin": origin} if origin else {})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, ""
    except OSError as why:
        return 0, str(why)


async def until(what, expected, ask_again):
    until = time.monotonic() + PATIENCE
    while (found := await asyncio.to_thread(ask_again)) != expected:
        if time.monotonic() > until:
            raise SystemExit(f"{what}: {found!r}, expected {expected!r}")
        await asyncio.sleep(0.2)


def equal(what, found, expected):
    if found != expected:
        raise SystemExit(f"{what}: {found!r}, expected {expected!r}")


async def check():
    await until("the page", 200, lambda: ask(SITE)[0])
    # It can publish when its login is written and both httpds have found Redis.
    await until("publishing with nobody there", (200, "to 0 subscribers\n"), lambda: ask(SITE, b"first", SITE))

    listeners = [await connect(f"ws://localhost:{port}/news", origin=SITE, proxy=None) for port in (8081, 8082)]
    await until("publishing", (200, "to 2 subscribers\n"), lambda: ask(SITE, "Zoë".encode(), SITE))
    for listener in listeners:
        equal("a listener", await asyncio.wait_for(listener.recv(), PATIENCE), "Zoë")

    equal("the page, asked by another site", ask(SITE, b"no", "http://example.com")[0], 403)
    equal("publishing without a login", ask("http://localhost:8081/publish?channel=news", b"no")[0], 401)
    try:
        await connect("ws://localhost:8082/news", origin="http://example.com", proxy=None)
        raise SystemExit("a page of another site listens")
    except InvalidStatus as refused:
        equal("a page of another site", refused.response.status_code, 403)

    down = asyncio.create_task(asyncio.to_thread(compose, "down", "--volumes"))
    for listener in listeners:
        try:
            raise SystemExit(f"in the place of a Close: {await asyncio.wait_for(listener.recv(), PATIENCE)!r}")
        except ConnectionClosed as end:
            equal("Close at the end", end.rcvd and end.rcvd.code, 1012)
    await down


try:
    compose("up", "--detach", "--no-build")
    asyncio.run(check())
except BaseException:
    print(compose("logs", check=False), file=sys.stderr)
    raise
finally:
    compose("down", "--volumes", check=False)
print("two httpds, Redis and a page in PHP")
