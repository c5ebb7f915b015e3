"""Tests of src/handlers/pywebsocket/worker.py: here the engine is this process. Run by tests/httpd/handlers/pywebsocket.rs, or with
`python3 tests/worker/test_worker.py`, where pywebsocket3 is installed."""

import array
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

WORKER = pathlib.Path(__file__).parents[2] / "src/handlers/pywebsocket/worker.py"
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

ECHO = """
def web_socket_do_extra_handshake(request):
    if request.ws_requested_protocols:
        request.ws_protocol = request.ws_requested_protocols[-1]

def web_socket_transfer_data(request):
    while True:
        message = request.ws_stream.receive_message()
        if message is None:
            return
        request.ws_stream.send_message(message, binary=isinstance(message, bytes))
"""


def handler(handshake="pass", transfer="pass"):
    return f"def web_socket_do_extra_handshake(request):\n    {handshake}\ndef web_socket_transfer_data(request):\n    {transfer}\n"


def frame(opcode, payload, fin=1):
    """A client's frame, with a mask."""
    size = len(payload)
    head = bytes([fin << 7 | opcode])
    if size < 126:
        head += bytes([128 | size])
    elif size < 65536:
        head += struct.pack("!BH", 128 | 126, size)
    else:
        head += struct.pack("!BQ", 128 | 127, size)
    mask = b"\x37\xfa\x21\x3d"
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class Case(unittest.TestCase):
    """A worker over a folder of handlers."""

    options = ()

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name, "handlers")
        self.root.mkdir()
        self.addCleanup(self.folder.cleanup)
        self.process = None

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def start(self, *options):
        self.control, theirs = socket.socketpair()
        self.log = tempfile.TemporaryFile("w+")
        command = [sys.executable, "-", "--parent", str(os.getpid()), *options, str(self.root)]
        with WORKER.open() as text:
            self.process = subprocess.Popen(command, stdin=text, stdout=theirs, stderr=self.log)
        theirs.close()
        self.addCleanup(self.stop)

    def stop(self):
        self.control.close()
        try:
            self.assertEqual(self.process.wait(10), 0, self.said())
        finally:
            self.process.kill()
            self.process.wait()
            self.log.close()

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def offer(self, uri, *headers, **facts):
        return Link(self, uri, headers, facts)

    def open(self, uri, *headers, **facts):
        link = self.offer(uri, *headers, **facts)
        kind, head = link.hear()
        self.assertEqual(kind, b"a", (head, self.said()))
        self.assertIn(["Sec-WebSocket-Accept", ACCEPT], head)
        return link.take()


class Link:
    def __init__(self, case, uri, headers, facts):
        self.case = case
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(20)
        case.addCleanup(self.socket.close)
        rights = array.array("i", [theirs.fileno()])
        case.control.sendmsg([b"c"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        theirs.close()
        basics = {
            "Host": "localhost",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": KEY,
            "Sec-WebSocket-Version": "13",
        }
        opening = {
            "line": f"GET {uri} HTTP/1.1",
            "uri": uri,
            "headers": [*basics.items(), *headers],
            "remote": ["192.0.2.1", 1234],
            "local": ["192.0.2.2", 80],
            "user": None,
            "secure": False,
            "max_message_size": 1 << 20,
            "close_timeout": 5,
            "idle_timeout": None,
            "ping": [30, 10],
        }
        self.say(b"o", json.dumps({**opening, **facts}).encode())

    def say(self, kind, payload, *sockets):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [it.fileno() for it in sockets]))]
        self.socket.sendmsg([struct.pack("!cI", kind, len(payload)) + payload], rights if sockets else [])

    def exactly(self, length, source=None):
        data = b""
        while len(data) < length:
            piece = (source or self.socket).recv(length - len(data))
            if not piece:
                raise EOFError(data)
            data += piece
        return data

    def hear(self):
        kind, length = struct.unpack("!cI", self.exactly(5))
        payload = self.exactly(length)
        return kind, json.loads(payload) if payload else None

    def take(self, early=b"", pair=None):
        self.client, theirs = pair or socket.socketpair()
        self.client.settimeout(20)
        self.case.addCleanup(self.client.close)
        self.say(b"t", early, theirs)
        theirs.close()
        return self

    def send(self, opcode, payload, fin=1):
        self.client.sendall(frame(opcode, payload, fin))

    def frame(self):
        first, size = self.exactly(2, self.client)
        if size == 126:
            (size,) = struct.unpack("!H", self.exactly(2, self.client))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.exactly(8, self.client))
        return first & 15, self.exactly(size, self.client)

    def expect_end(self, by, code):
        self.case.assertEqual(self.client.recv(1), b"")
        self.client.close()
        kind, end = self.hear()
        self.case.assertEqual((kind, end["by"], end["code"]), (b"e", by, code), self.case.said())
        return end


class Handshakes(Case):
    def test_verdicts(self):
        self.write("echo_wsh.py", ECHO)
        self.write("no_wsh.py", handler("raise ValueError('not you')"))
        self.write("drop_wsh.py", "from pywebsocket3 import handshake\n" + handler("raise handshake.AbortedByUserException('x')"))
        self.start()
        self.assertEqual(self.offer("/nothing").hear(), (b"d", None))
        self.assertEqual(self.offer("/echo_wsh.py").hear(), (b"d", None))
        kind, (status, reason) = self.offer("/no").hear()
        self.assertEqual((kind, status), (b"r", 403))
        self.assertIn("not you", reason)
        self.assertEqual(self.offer("/drop").hear(), (b"q", None))
        self.assertEqual(self.offer("/echo", ("Sec-WebSocket-Key", KEY)).hear()[0], b"a")
        kind, (status, _) = self.offer("/echo", ("Sec-WebSocket-Extensions", "a b")).hear()
        self.assertEqual((kind, status), (b"r", 400))
        # Given up before and after the answer.
        self.offer("/echo").socket.close()
        link = self.offer("/echo?x=y")
        self.assertEqual(link.hear()[0], b"a")
        link.socket.close()

    def test_headers_and_protocols(self):
        cookie = "request.extra_headers += [('Set-Cookie', 'a=b'), ('Set-Cookie', 'c=d'), ('X', 'é')]"
        self.write("cookie_wsh.py", handler(cookie))
        self.write("echo_wsh.py", ECHO)
        self.start()
        kind, head = self.offer("/cookie").hear()
        self.assertEqual(kind, b"a")
        self.assertEqual(head[3:], [["Set-Cookie", "a=b"], ["Set-Cookie", "c=d"], ["X", "é"]])
        kind, head = self.offer("/echo", ("Sec-WebSocket-Protocol", "one, two")).hear()
        self.assertIn(["Sec-WebSocket-Protocol", "two"], head)
        self.assertEqual(self.offer("/cookie", ("Sec-WebSocket-Protocol", "one")).hear()[0], b"r")

    def test_raw_words(self):
        self.write("written_wsh.py", handler("request.connection.write(b'HTTP/1.1 101 By Hand\\r\\n\\r\\n')"))
        self.write("read_wsh.py", handler("request.connection.write(request.connection.read(5))"))
        self.write("refused_wsh.py", handler("request.connection.write(b'sorry'); raise ValueError()"))
        self.start()
        link = self.offer("/written")
        self.assertEqual(link.hear(), (b"c", None))
        link.take()
        self.assertEqual(link.exactly(24, link.client), b"HTTP/1.1 101 By Hand\r\n\r\n")
        second = b""
        while not second.endswith(b"\r\n\r\n"):
            second += link.exactly(1, link.client)
        self.assertIn(ACCEPT.encode(), second)
        self.assertEqual(link.frame(), (8, struct.pack("!H", 1000)))
        link = self.offer("/read")
        self.assertEqual(link.hear(), (b"c", None))
        link.take(b"123")
        link.client.sendall(b"45")
        self.assertEqual(link.exactly(5, link.client), b"12345")
        link = self.offer("/refused")
        self.assertEqual(link.hear(), (b"c", None))
        link.take()
        self.assertTrue(link.exactly(17, link.client).startswith(b"sorryHTTP/1.1 403"))

    def test_what_is_broken_costs_the_others_nothing(self):
        self.write("echo_wsh.py", ECHO)
        for name, text in {"syntax": "def f(:", "exit": "import sys; sys.exit(1)", "half": "x = 1", "bytes": "x = 1"}.items():
            self.write(f"broken/{name}_wsh.py", text)
        (self.root / "broken/bytes_wsh.py").write_bytes(b"x = '\xff'")
        self.start()
        self.assertEqual(self.offer("/echo").hear()[0], b"a")
        log = self.said()
        self.assertEqual(log.count("<4>") + log.count("<3>"), log.count("\n"), log)
        for name in ["syntax", "exit", "half", "bytes"]:
            self.assertIn(f"broken/{name}_wsh.py: ", log)

    def test_no_thread_for_another_connection(self):
        self.write("echo_wsh.py", ECHO)
        limit = "import threading\ndef limited(thread):\n    raise RuntimeError('no more')\n"
        self.write("limit_wsh.py", limit + handler("threading.Thread.start = limited"))
        self.start()
        link = self.open("/echo")
        self.open("/limit")
        with self.assertRaises((EOFError, OSError)):
            self.offer("/echo").hear()
        link.send(1, b"still here")
        self.assertEqual(link.frame(), (1, b"still here"))
        self.assertIn("no thread for another connection", self.said())

    def test_what_cannot_be_read(self):
        self.write("echo_wsh.py", ECHO)
        self.start()
        kind, (status, _) = self.offer("//[x/y").hear()
        self.assertEqual((kind, status), (b"r", 400))
        many = [(f"X-{number}", "y") for number in range(200)]
        kind, (status, _) = self.offer("/echo", *many).hear()
        self.assertEqual((kind, status), (b"r", 400))
        self.assertEqual(self.said(), "")

    def test_aliases_and_where_handlers_may_lie(self):
        self.write("in/echo_wsh.py", ECHO)
        self.write("out_wsh.py", ECHO)
        self.write("in/UPPER_WSH.PY", ECHO)
        map_file = self.root / "map"
        map_file.write_text("# a comment\n\n/other /in/echo\n/bad\n/worse /nothing\n")
        beside = self.root.with_name("handlers2")
        beside.mkdir()
        (beside / "link_wsh.py").write_text(ECHO)
        (self.root / "in/link_wsh.py").symlink_to(beside / "link_wsh.py")
        self.start("--scan", "in", "--map", str(map_file))
        self.assertEqual(self.offer("/other").hear()[0], b"a")
        self.assertEqual(self.offer("/in/echo").hear()[0], b"a")
        for uri in ["/out", "/in/link", "/in/UPPER", "/bad", "/in"]:
            self.assertEqual(self.offer(uri).hear()[0], b"d", uri)
        log = self.said()
        self.assertEqual(log.count("<4>"), 3, log)

    def test_handlers_outside(self):
        beside = self.root.with_name("handlers2")
        beside.mkdir()
        (beside / "link_wsh.py").write_text(ECHO)
        (self.root / "link_wsh.py").symlink_to(beside / "link_wsh.py")
        self.start("--outside-root")
        self.assertEqual(self.offer("/link").hear()[0], b"a")

    def test_the_older_name_is_the_same_package(self):
        lines = """
import mod_pywebsocket.stream, pywebsocket3.stream
from mod_pywebsocket import msgutil, common
from mod_pywebsocket.handshake import AbortedByUserException
from mod_pywebsocket.handshake._base import HandshakeException
assert mod_pywebsocket.stream is pywebsocket3.stream
"""
        self.write("old_wsh.py", lines + ECHO)
        self.start()
        self.assertEqual(self.offer("/old").hear()[0], b"a")
        self.assertEqual(self.said(), "")


class Sessions(Case):
    def test_messages_of_all_sizes(self):
        self.write("echo_wsh.py", ECHO)
        self.start()
        link = self.open("/echo")
        for size in [0, 1, 3, 125, 126, 65535, 65536, 1 << 20]:
            payload = bytes(range(256)) * (size // 256 + 1)
            link.send(2, payload[:size])
            self.assertEqual(link.frame(), (2, payload[:size]))
        link.send(1, "é".encode()[:1], fin=0)
        link.send(9, b"ping")
        link.send(10, b"nothing")
        link.send(0, "é".encode()[1:])
        self.assertEqual([link.frame(), link.frame()], [(10, b"ping"), (1, "é".encode())])
        link.send(2, b"half", fin=0)
        link.send(8, struct.pack("!H", 1000))
        self.assertEqual(link.frame(), (8, struct.pack("!H", 1000)))
        end = link.expect_end("client", 1000)
        self.assertEqual(end["received"], end["sent"])
        self.assertEqual(end["sent"][0], 9)

    def test_what_came_with_the_handshake(self):
        self.write("echo_wsh.py", ECHO)
        self.start()
        link = self.offer("/echo")
        self.assertEqual(link.hear()[0], b"a")
        link.take(frame(1, b"early") + frame(1, b"and half")[:4])
        link.client.sendall(frame(1, b"and half")[4:])
        self.assertEqual([link.frame(), link.frame()], [(1, b"early"), (1, b"and half")])

    def test_a_message_that_is_too_long(self):
        self.write("echo_wsh.py", ECHO)
        self.start()
        for frames in [[(2, b"x" * 1001, 1)], [(1, b"x" * 600, 0), (0, b"x" * 401, 1)]]:
            link = self.open("/echo", max_message_size=1000)
            link.send(1, b"x" * 1000)
            self.assertEqual(link.frame()[1], b"x" * 1000)
            for opcode, payload, fin in frames:
                link.send(opcode, payload, fin)
            self.assertEqual(link.frame()[1][:2], struct.pack("!H", 1009))
            link.client.shutdown(socket.SHUT_WR)
            link.expect_end("violation", 1009)

    def test_a_message_that_is_too_long_unpacked(self):
        import zlib

        self.write("echo_wsh.py", ECHO)
        self.start()
        link = self.open("/echo", ("Sec-WebSocket-Extensions", "permessage-deflate"), max_message_size=10000)
        for size in [10, 10000, 10001]:
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            packed = packer.compress(b"a" * size) + packer.flush(zlib.Z_SYNC_FLUSH)
            data = bytearray(frame(1, packed[:-4]))
            data[0] |= 64
            link.client.sendall(data)
            opcode, payload = link.frame()
            self.assertEqual(opcode, 8 if size > 10000 else 1)
        self.assertEqual(payload[:2], struct.pack("!H", 1009))

    def test_who_closes(self):
        self.write("code_wsh.py", handler(transfer="request.ws_stream.close_connection(4321, 'so')"))
        self.write("done_wsh.py", handler())
        self.write("bad_wsh.py", "from pywebsocket3 import msgutil\n" + handler(transfer="raise msgutil.BadOperationException('x')"))
        self.write("fail_wsh.py", handler(transfer="raise ValueError('oh')"))
        self.start()
        for uri, code in [("/code", 4321), ("/done", 1000), ("/bad", 1011)]:
            link = self.open(uri)
            self.assertEqual(link.frame()[1][:2], struct.pack("!H", code))
            link.send(8, struct.pack("!H", code))
            link.expect_end("handler", code)
        link = self.open("/fail")
        link.expect_end("lost", 1006)
        self.assertIn("ValueError: /fail", self.said().replace("web_socket_transfer_data raised exception for ", ""))
        link = self.open("/done")
        link.client.shutdown(socket.SHUT_WR)
        self.assertEqual(link.frame()[0], 8)

    def test_the_engine_closes(self):
        self.write("echo_wsh.py", ECHO)
        self.write("deaf_wsh.py", handler(transfer="import time; time.sleep(1000)"))
        self.start()
        link = self.open("/echo")
        link.say(b"x", json.dumps([1001, "bye"]).encode())
        self.assertEqual(link.frame(), (8, struct.pack("!H", 1001) + b"bye"))
        link.send(8, struct.pack("!H", 1001))
        link.expect_end("server", 1001)
        # A client that does not answer.
        link = self.open("/echo", close_timeout=1)
        link.say(b"x", json.dumps([1012, ""]).encode())
        self.assertEqual(link.frame(), (8, struct.pack("!H", 1012)))
        link.expect_end("server", 1012)
        # A handler that does not listen; and then the engine is gone.
        for word in ["x", ""]:
            link = self.open("/deaf", close_timeout=1)
            if word:
                link.say(b"x", json.dumps([1012, ""]).encode())
            else:
                link.socket.close()
            self.assertEqual(link.frame()[1][:2], struct.pack("!H", 1012))
            self.assertEqual(link.client.recv(1), b"")
            if word:
                link.socket.close()

    def test_clients_that_are_gone_without_a_word(self):
        self.write("echo_wsh.py", ECHO)
        self.start()
        listener = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        listener.close()
        ours = theirs.dup()
        link = self.offer("/echo", ping=[99999, 12])
        self.assertEqual(link.hear()[0], b"a")
        link.take(pair=(client, theirs))
        link.send(1, b"hello")
        self.assertEqual(link.frame(), (1, b"hello"))
        options = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
        self.assertEqual(ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
        self.assertEqual([ours.getsockopt(socket.IPPROTO_TCP, option) for option in options], [32767, 4, 3])
        ours.close()

    def test_an_idle_client(self):
        self.write("echo_wsh.py", ECHO)
        self.start()
        link = self.open("/echo", idle_timeout=1, close_timeout=1)
        self.assertEqual(link.frame(), (8, struct.pack("!H", 1001) + b"idle timeout"))
        link.expect_end("server", 1001)

    def test_a_retired_worker_serves_its_connections(self):
        self.write("echo_wsh.py", ECHO)
        self.start()
        link = self.open("/echo")
        self.control.shutdown(socket.SHUT_RDWR)
        link.send(1, b"still here")
        self.assertEqual(link.frame(), (1, b"still here"))
        self.assertIsNone(self.process.poll())
        link.send(8, b"")
        self.assertEqual(link.frame()[0], 8)
        link.expect_end("client", 1005)
        self.assertEqual(self.process.wait(10), 0)

    def test_what_handlers_say(self):
        lines = "import logging; print('printed'); logging.warning('two\\nlines'); raise KeyError('k')"
        self.write("talk_wsh.py", handler(transfer=lines))
        self.start()
        self.open("/talk").expect_end("lost", 1006)
        log = self.said()
        self.assertIn("\nprinted\n", "\n" + log)
        self.assertIn("<4>two\n<4>lines\n", log)
        self.assertIn("<3>KeyError", log)


class Masks(unittest.TestCase):
    def test_the_fast_mask_is_the_slow_one(self):
        from pywebsocket3 import util

        source = WORKER.read_text()
        names = {}
        exec(compile(source, str(WORKER), "exec"), names)
        slow, fast = util.RepeatedXorMasker(b"\1\2\3\xff"), util.RepeatedXorMasker(b"\1\2\3\xff")
        for size in [0, 1, 2, 3, 4, 5, 0, 7, 1000, 4097]:
            data = os.urandom(size)
            self.assertEqual(names["mask"](fast, data), slow.mask(data))


if __name__ == "__main__":
    unittest.main()
