"""A foreign client: the Python package websockets, against the echo handler at the URL in the first argument.

The second argument says whether compression is expected, "compressed" or "plain". For wss the third one is a file with
the certificate to trust.
"""

import asyncio
import ssl
import sys

import websockets


def prose(size):
    """A text that compresses, and not to nothing."""
    line = "".join(f"{number * number % 1013} sheep and {number % 17} goats; " for number in range(5000))
    return (line * (size // len(line) + 1))[:size]


async def main(url, compression, certificate=None):
    context = certificate and ssl.create_default_context(cafile=certificate)
    async with websockets.connect(url, ssl=context, max_size=None, subprotocols=["chat", "echo"]) as socket:
        assert socket.subprotocol == "echo", socket.subprotocol
        extensions = [extension.name for extension in socket.protocol.extensions]
        assert extensions == {"compressed": ["permessage-deflate"], "plain": []}[compression], extensions
        messages = ["", "hello", "你好，世界 🚀", b"", bytes(range(256)), "x" * 70_000, b"\xff" * (1 << 20), prose(10 << 20)]
        for message in messages:
            await socket.send(message)
            assert await socket.recv() == message, message[:20]
        # In fragments.
        await socket.send(["one, ", "two, ", "three"])
        assert await socket.recv() == "one, two, three"
        await socket.send([b"one", b"two"])
        assert await socket.recv() == b"onetwo"
        # Many on their way at once.
        await asyncio.gather(*(socket.send(str(number)) for number in range(100)))
        assert {await socket.recv() for _ in range(100)} == {str(number) for number in range(100)}
        # The future of a ping is done when its Pong has come.
        await (await socket.ping(b"are you there?"))
        await socket.close(4000, "再见")
    assert (socket.close_code, socket.close_reason) == (4000, "再见"), (socket.close_code, socket.close_reason)
    print("websockets", websockets.__version__, "is content")


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 60))
