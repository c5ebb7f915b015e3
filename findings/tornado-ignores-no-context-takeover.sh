#!/usr/bin/env bash
# Versions: tornado 6.6.1 (PyPI), as a client; the server is a few lines below.
# Guess:    a server may put client_no_context_takeover into its answer without an offer of it (RFC 7692 section 7.1.1.2 allows that), and
#           a client that supports the extension compresses each message by itself then.
# Seen:     Tornado accepts the answer and goes on with one context: its first message can be inflated alone, the second refers to
#           the first and cannot. A server that has thrown its window away sees a broken message, though each side agreed.
set -uo pipefail
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" && "$folder/venv/bin/python3" -m pip install --quiet --disable-pip-version-check tornado==6.6.1 || exit 2
cat >"$folder/run.py" <<'P'
import asyncio, base64, hashlib, sys, zlib
import tornado.websocket

seen = []


async def serve(reader, writer):
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    lines = {name.lower(): value for name, value in lines.items()}
    seen.append("offer: " + lines["sec-websocket-extensions"])
    accept = hashlib.sha1((lines["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + base64.b64encode(accept)
        + b"\r\nSec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n\r\n"
    )
    for _ in range(2):
        _, length = await reader.readexactly(2)
        mask = await reader.readexactly(4)
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(await reader.readexactly(length & 127)))
        try:
            zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff")
            seen.append("alone")
        except zlib.error as error:
            seen.append(f"refers back ({error})")
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    client = await tornado.websocket.websocket_connect(url, compression_options={})
    for _ in range(2):
        await client.write_message("the same text each time, the same text each time")
    await asyncio.wait_for(client.read_message(), 10)


asyncio.run(main())
print(*seen, sep="\n")
sys.exit(0 if seen[1] == "alone" and seen[2].startswith("refers back") else 1)
P
"$folder/venv/bin/python3" "$folder/run.py"
