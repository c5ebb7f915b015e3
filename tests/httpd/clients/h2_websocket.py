"""WebSockets in HTTP/2 (RFC 8441), by the Python package h2: `h2_websocket.py PORT CERTIFICATE SCENARIO [JSON]`.

Where the test that runs this has something to look at, the scenario says a word on stdout and waits for a line on stdin.
"""

import json
import select
import socket
import ssl
import struct
import sys
import time

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes

PATIENCE = 20
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = b"\x01\x82\x03\xfe"


def masked(payload):
    key = (KEY * (len(payload) // 4 + 1))[: len(payload)]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return mixed.to_bytes(len(payload), "big")


def frame(opcode, payload=b"", fin=True):
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = struct.pack(">BH", 0x80 | 126, size)
    else:
        length = struct.pack(">BQ", 0x80 | 127, size)
    return bytes([fin << 7 | opcode]) + length + KEY + masked(payload)


class Stream:
    """What has come on a stream."""

    def __init__(self, number):
        self.number = number
        self.status = None
        self.headers = {}
        self.lines = []
        self.data = bytearray()
        self.ended = False
        self.reset = False
        # Whether the server may send more once this client has what it sent.
        self.reading = True

    def frame(self):
        """Takes a whole frame from what has come: its opcode and its payload."""
        data = self.data
        if len(data) < 2:
            return None
        size, start = data[1], 2
        if size == 126:
            start = 4
        elif size == 127:
            start = 10
        if len(data) < start:
            return None
        if start > 2:
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + size:
            return None
        assert data[0] & 0x80, "a fragment"
        taken = (data[0] & 0x0F, bytes(data[start : start + size]))
        del data[: start + size]
        return taken


class Client:
    def __init__(self, port, certificate):
        self.authority = f"127.0.0.1:{port}"
        context = ssl.create_default_context(cafile=certificate)
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname="127.0.0.1")
        assert self.socket.selected_alpn_protocol() == "h2", self.socket.selected_alpn_protocol()
        self.socket.settimeout(PATIENCE)
        self.http2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.http2.initiate_connection()
        self.streams = {}
        self.received = bytearray()
        self.last_stream = None
        self.send()
        connect = SettingCodes.ENABLE_CONNECT_PROTOCOL
        self.until("the extended CONNECT is offered", lambda: self.http2.remote_settings.get(connect) == 1)

    def send(self):
        self.socket.sendall(self.http2.data_to_send())

    def receive(self):
        data = self.socket.recv(65536)
        assert data, "the server has closed the connection"
        for event in self.http2.receive_data(self.without_goaway(data)):
            stream = self.streams.get(getattr(event, "stream_id", None))
            if isinstance(event, DataReceived):
                stream.data += event.data
                size = event.flow_controlled_length
                if stream.reading:
                    self.http2.acknowledge_received_data(size, event.stream_id)
                elif size:
                    # Only the window of the connection: the other streams are to go on.
                    self.http2.increment_flow_control_window(size)
            elif isinstance(event, ResponseReceived):
                stream.headers = dict(event.headers)
                stream.lines = event.headers
                stream.status = int(stream.headers[":status"])
            elif isinstance(event, StreamEnded):
                stream.ended = True
            elif isinstance(event, StreamReset):
                # Behind the end of the server's side it asks the client for no more, RFC 9113 section 8.1.
                stream.reset = not (stream.ended and event.error_code == 0)
                stream.ended = True
        self.send()

    def without_goaway(self, data):
        """The whole frames that have come but for GOAWAY: h2 takes one for the end of the connection. The streams that the
        server has begun go on (RFC 9113 section 6.8)."""
        self.received += data
        whole = bytearray()
        while len(self.received) >= 9:
            end = 9 + int.from_bytes(self.received[:3], "big")
            if len(self.received) < end:
                break
            frame = self.received[:end]
            del self.received[:end]
            if frame[3] == 7:
                self.last_stream = int.from_bytes(frame[9:13], "big")
                assert int.from_bytes(frame[13:17], "big") == 0, frame
            else:
                whole += frame
        return bytes(whole)

    def until(self, what, condition):
        end = time.monotonic() + PATIENCE
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < end, f"in vain until {what}"
            try:
                self.receive()
            except TimeoutError:
                raise AssertionError(f"nothing from the server until {what}") from None

    def request(self, headers, end):
        number = self.http2.get_next_available_stream_id()
        self.http2.send_headers(number, headers, end_stream=end)
        self.streams[number] = Stream(number)
        self.send()
        return self.streams[number]

    def page(self, path):
        head = [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", self.authority)]
        stream = self.request(head, True)
        self.until(f"the page {path} is there", lambda: stream.ended)
        return stream.status, bytes(stream.data)

    def ask(self, path="/echo", version="13", origin=None, headers=()):
        """Asks for a WebSocket, and does not wait for the answer."""
        return self.request(
            [
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "https"),
                (":path", path),
                (":authority", self.authority),
                ("sec-websocket-version", version),
                ("origin", origin or f"https://{self.authority}"),
                *headers,
            ],
            False,
        )

    def status(self, stream):
        return self.until(f"stream {stream.number} is answered", lambda: stream.status)

    def open(self):
        stream = self.ask()
        assert self.status(stream) == 200, stream.status
        return stream

    def write(self, stream, data):
        """Sends as much at a time as the server's windows allow."""
        view = memoryview(data)
        while view:
            window = self.http2.local_flow_control_window(stream.number)
            size = min(window, self.http2.max_outbound_frame_size, len(view))
            if size == 0:
                self.receive()
                continue
            self.http2.send_data(stream.number, view[:size].tobytes())
            self.send()
            view = view[size:]

    def expect(self, stream, opcode, payload):
        got = self.until(f"stream {stream.number} has a frame", lambda: stream.frame() or stream.ended)
        assert got == (opcode, payload), (stream.number, str(got)[:80], str(payload)[:80])

    def echo(self, stream, opcode, payload):
        self.write(stream, frame(opcode, payload))
        self.expect(stream, opcode, payload)

    def close(self, stream, code=1000):
        payload = struct.pack(">H", code)
        self.echo(stream, CLOSE, payload)
        self.until(f"stream {stream.number} has ended", lambda: stream.ended)
        assert not stream.reset and not stream.data, (stream.reset, stream.data)

    def over(self):
        self.http2.close_connection()
        self.send()
        self.socket.close()


def say(word):
    print(word, flush=True)
    assert sys.stdin.readline(), "the test has failed"


def messages(client):
    stream = client.open()
    for text in ["", "hello", "你好，世界 🚀", "汉字" * 30_000]:
        client.echo(stream, TEXT, text.encode())
    for size in [0, 1, 125, 126, 65535, 65536, 1 << 20]:
        client.echo(stream, BINARY, bytes(index * 7 // 3 % 251 for index in range(size)))
    client.write(stream, frame(TEXT, b"one, ", fin=False) + frame(PING, b"now") + frame(0, b"two"))
    client.expect(stream, PONG, b"now")
    client.expect(stream, TEXT, b"one, two")
    client.write(stream, b"".join(frame(TEXT, b"%d" % number) for number in range(500)))
    for number in range(500):
        client.expect(stream, TEXT, b"%d" % number)
    status, body = client.page("/index.html")
    assert (status, body) == (200, b"<p>A page of the site.</p>\n"), (status, body)
    client.echo(stream, TEXT, b"beside a page")
    client.close(stream, 4000)
    # The connection goes on: one WebSocket after the other, more of them than run at a time.
    for number in range(20):
        stream = client.open()
        client.echo(stream, TEXT, b"%d" % number)
        client.close(stream)


def response_headers(client):
    """What tests/httpd/front/response_headers.rs configures."""
    offer = [("sec-websocket-protocol", "chat"), ("accept-encoding", "gzip")]
    stream = client.ask(headers=offer)
    assert client.status(stream) == 200, stream.status
    lines = stream.lines
    assert ("sec-websocket-protocol", "chat") in lines, lines
    assert ("x-set", "one two") in lines and ("x-early", "late") in lines and ("x-status", "101") in lines, lines
    names = [name for name, _ in lines]
    assert names.count("sec-websocket-protocol") == names.count("strict-transport-security") == 1, lines
    for name in ["connection", "upgrade", "sec-websocket-accept", "content-length", "content-encoding", "trailer", "x-unset"]:
        assert name not in names, lines
    cookies = sorted(value for name, value in lines if name == "set-cookie")
    starts = ["Apache=", "ROUTEID=.a; path=/", "second=2; path=/", "session=expiry="]
    assert len(cookies) == 4 and all(map(str.startswith, cookies, starts)), cookies
    client.echo(stream, TEXT, b"see me unchanged")
    client.close(stream)


def refusals(client):
    beside = client.open()
    answers = [dict(version="12"), dict(origin="https://elsewhere.example"), dict(path="/nothing")]
    answers = [client.status(client.ask(**wrong)) for wrong in answers]
    # The first answer is mod_http2's own.
    assert answers == [400, 403, 404], answers
    stream = client.open()
    client.write(stream, frame(TEXT, b"\xff"))
    opcode, payload = client.until("the Close is there", stream.frame)
    assert (opcode, payload[:2]) == (CLOSE, struct.pack(">H", 1007)), (opcode, payload)
    client.until("the failed session's stream has ended", lambda: stream.ended)
    client.close(beside)


def python(client):
    """What handlers in Python do that others do not."""
    beside = client.open()
    answers = [client.status(client.ask(path)) for path in ["/fail?early", "/nothing"]]
    assert answers == [403, 404], answers
    dropped = client.ask("/abort_handshake")
    client.until("the stream has ended", lambda: dropped.ended or dropped.reset)
    assert dropped.status is None, dropped.status
    # Bytes by hand, after the 101 and before it.
    for path in ["/raw", "/raw?101"]:
        stream = client.ask(path)
        assert client.status(stream) == 200, stream.status
        client.write(stream, frame(TEXT, b"x"))
        client.expect(stream, TEXT, b"1 1 x")
        client.expect(stream, TEXT, b"raw")
        client.write(stream, frame(TEXT))
        client.expect(stream, CLOSE, struct.pack(">H", 1000))
    client.close(beside)

def streams(client):
    one, two, three, four = opened = [client.open() for _ in range(4)]
    for number in range(50):
        for stream in opened:
            client.write(stream, frame(TEXT, b"%d on %d" % (number, stream.number)))
        for stream in reversed(opened):
            client.expect(stream, TEXT, b"%d on %d" % (number, stream.number))
    # A message in the middle of its way, while the others talk.
    large = frame(BINARY, b"x" * (1 << 20))
    client.write(one, large[: 1 << 19])
    client.echo(two, TEXT, b"beside half a message")
    client.write(one, large[1 << 19 :])
    client.expect(one, BINARY, b"x" * (1 << 20))
    say("four are open")

    client.http2.reset_stream(two.number)
    client.send()
    say("one is reset")
    client.echo(one, TEXT, b"unaffected")

    client.http2.end_stream(three.number)
    client.send()
    client.until("the stream that the client has ended has ended", lambda: three.ended)
    say("one has ended")
    client.echo(one, TEXT, b"still unaffected")
    client.echo(four, TEXT, b"still unaffected")
    client.close(one)
    client.close(four)


def idle(client):
    one, within = client.open(), client.open()
    message = frame(TEXT, b"to be continued")
    client.write(within, message[:9])
    end = time.monotonic() + 5
    # Nothing is said by anybody until then, but for what belongs to the connection.
    while (left := end - time.monotonic()) > 0:
        if select.select([client.socket], [], [], left)[0]:
            client.receive()
    assert not one.ended and not within.ended and not one.data and not within.data
    client.echo(one, TEXT, b"still here")
    client.write(within, message[9:])
    client.expect(within, TEXT, b"to be continued")
    client.close(one)
    client.close(within)


def windows(client):
    deaf, other = client.open(), client.open()
    deaf.reading = False
    message = bytes(index * 7 // 3 % 251 for index in range(1 << 20))
    client.write(deaf, frame(BINARY, message))
    # No more than the window of the stream, RFC 9113 section 6.9.
    client.until("the window is used up", lambda: len(deaf.data) == 65535)
    begin = time.monotonic()
    while time.monotonic() < begin + 4:
        client.echo(other, BINARY, b"z" * 65536)
    assert len(deaf.data) == 65535, len(deaf.data)
    say("one does not read")
    deaf.reading = True
    client.http2.increment_flow_control_window(65535, deaf.number)
    client.send()
    client.expect(deaf, BINARY, message)
    client.echo(deaf, TEXT, b"reads again")
    client.close(deaf)
    client.close(other)


def ten(client):
    waiting = [client.ask() for _ in range(10)]
    # mod_http2 starts so many at once while they block.
    client.until("six are open", lambda: sum(stream.status == 200 for stream in waiting) >= 6)
    done = 0
    while waiting:
        ready = client.until("one more is open", lambda: [stream for stream in waiting if stream.status])
        for stream in ready:
            assert stream.status == 200, stream.status
            client.echo(stream, TEXT, b"hello on %d" % stream.number)
        client.close(ready[0])
        waiting.remove(ready[0])
        done += 1
    assert done == 10, done


def too_many(client):
    """Four of a connection, ten of a child."""
    others = [Client(int(sys.argv[1]), sys.argv[2]) for _ in range(2)]

    def page_loads(here):
        assert here.page("/index.html")[0] == 200

    open_here = {client: [client.open() for _ in range(4)]}
    assert client.status(client.ask()) == 503
    page_loads(client)
    open_here[others[0]] = [others[0].open() for _ in range(4)]
    open_here[others[1]] = [others[1].open() for _ in range(2)]
    assert others[1].status(others[1].ask()) == 503
    for here, streams in open_here.items():
        page_loads(here)
        for stream in streams:
            here.echo(stream, TEXT, b"still open")
    # Another one may have its place, as soon as mod_http2 is done with the stream.
    client.close(open_here[client].pop())
    begin = time.monotonic()
    while True:
        stream = client.ask()
        if client.status(stream) == 200:
            break
        assert time.monotonic() < begin + PATIENCE
    client.close(stream)
    for here, streams in open_here.items():
        for stream in streams:
            here.close(stream)
    for other in others:
        other.over()


def drain(client):
    one, two = client.open(), client.open()
    client.echo(one, TEXT, b"before")
    say("two are open")
    client.echo(one, TEXT, b"in the old child")
    client.echo(two, TEXT, b"in the old child")
    say("they go on")
    assert client.last_stream is None or client.last_stream >= two.number, client.last_stream
    for stream in (one, two):
        opcode, payload = client.until("the Close is there", stream.frame)
        assert (opcode, payload) == (CLOSE, struct.pack(">H", 1012) + b"server is restarting"), (opcode, payload)
        client.write(stream, frame(CLOSE, payload[:2]))
        client.until(f"stream {stream.number} has ended", lambda stream=stream: stream.ended)


def channel(client):
    """Two subscribers in two streams, of which one leaves and comes back."""
    nchan = [("sec-websocket-protocol", "ws+meta.nchan")]

    def subscribe(headers):
        stream = client.ask(path="/news", headers=headers)
        assert client.status(stream) == 200, stream.status
        return stream

    def message(stream):
        opcode, payload = client.until("a message is there", stream.frame)
        head, body = payload.split(b"\n\n", 1)
        assert head.startswith(b"id: "), head
        return opcode, body, head.split(b"\n")[0][4:].decode()

    stays, leaves = subscribe(nchan), subscribe(nchan)
    assert stays.headers.get("sec-websocket-protocol") == "ws+meta.nchan", stays.headers
    assert "websocket-recovered" not in stays.headers, stays.headers
    say("two are subscribed")
    expected = [(TEXT, "caf\u00e9".encode()), (BINARY, b"\xff\x00"), (TEXT, b""), (TEXT, b"x" * (1 << 20))]
    for opcode, body in expected:
        here, there = message(stays), message(leaves)
        assert here == there and here[:2] == (opcode, body), (str(here)[:80], str(there)[:80])
    client.close(leaves)
    say("one has left")
    missed = [message(stays) for _ in range(3)]
    assert [body for _, body, _ in missed] == [b"0", b"1", b"2"], missed
    back = subscribe([*nchan, ("last-event-id", here[2])])
    assert back.headers.get("websocket-recovered") == "true", back.headers
    assert [message(back) for _ in range(3)] == missed
    say("it is back")
    for stream in (stays, back):
        opcode, payload = client.until("the Close is there", stream.frame)
        assert (opcode, payload) == (CLOSE, struct.pack(">H", 4001) + b"over"), (opcode, payload)
        client.write(stream, frame(CLOSE, payload[:2]))
        client.until(f"stream {stream.number} has ended", lambda stream=stream: stream.ended)


def vanish(client):
    for stream in [client.open() for _ in range(4)]:
        client.echo(stream, TEXT, b"hello")
    say("four are open")
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()
    say("the connection is reset")


def refused(client, expected):
    """Handshakes that are answered with a page."""
    for path, status, page in json.loads(expected):
        stream = client.ask(path, origin="https://elsewhere.example" if "/origin/" in path else None)
        client.until(f"{path} is answered", lambda stream=stream: stream.ended)
        assert (stream.status, bytes(stream.data).decode()) == (status, page), (path, stream.status, stream.data)
        challenge = 'Basic realm="members"' if status == 401 else None
        assert stream.headers.get("www-authenticate") == challenge, (path, stream.headers)


def login(client, paths):
    """Handshakes to what wants a login, without it and with it."""
    for path in json.loads(paths):
        stream = client.ask(path)
        # mod_negotiation does not see what is refused.
        assert client.status(stream) == (404 if path == "/views/socket" else 401), (path, stream.status)
        stream = client.ask(path, headers=[("authorization", "Basic YWxpY2U6b3BlbiBzZXNhbWU=")])
        assert client.status(stream) == 200, (path, stream.status)
        client.http2.reset_stream(stream.number)
        client.send()


port, certificate, scenario, *arguments = sys.argv[1:]
client = Client(int(port), certificate)
globals()[scenario](client, *arguments)
if scenario != "vanish":
    client.over()
print("content")
