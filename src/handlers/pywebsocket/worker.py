"""The worker of `WebSocketHandler pywebsocket`: runs *_wsh.py handlers, with the package pywebsocket3.

The engine starts it as `python3 - [options] ROOT`, with this text as standard input. In the place of standard output is a
Unix stream socket: each byte on it brings a descriptor, the worker's end of another one, which is the link of a connection.
Its end is the end of the worker, once its connections are over. On a link goes, as length (4 bytes), kind (1 byte), payload:

    engine                      worker
    o  the request, JSON   ->
                           <-   a  the 101's header lines, JSON   taken: the engine has the 101 sent
                                c                                 taken: the worker answers the client itself
                                r  [status, reason], JSON         refused
                                d                                 there is no such handler
                                q                                 to be dropped without an answer
    t  bytes, the socket   ->                                     the client's stream; the bytes were read of it before
    x  [code, reason], JSON ->                                    close it
                           <-   e  how it ended, JSON

The end of a link before `t`: the client was given up; after it: the engine is gone. What is written to standard error goes
to httpd's error log, a line each, with its level as sd-daemon(3) has it: `<4>a warning`.
"""

from __future__ import annotations

import argparse
import array
import ctypes
import http.client
import importlib
import io
import json
import logging
import os
import pkgutil
import re
import select
import selectors
import signal
import socket
import struct
import sys
import threading
import time
import tokenize
import zlib
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

# '' stands for the working directory, of which nothing may shadow a module of Python's.
sys.path[:] = [folder for folder in sys.path if folder]

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
PATIENCE = 60.0
"""Seconds that a client may take nothing of what is written to it."""
LINGER = 2.0
"""Seconds that a client has to close its side of a connection that we have closed."""
LINGER_BYTES = 64 << 20
LAST_WORDS = 1.0
"""Seconds that clients have to answer our Close when the engine is gone."""
PIECE = 256 << 10
"""Bytes that are read at a time, at most."""
LONGEST_KEEPALIVE = 32767
"""Seconds, by tcp(7)."""
HEADER = 8
"""The longest piece of a frame's header (RFC 6455 section 5.2)."""
MAX_CONTROL = 125
HEAD = re.compile(rb"HTTP/1\.1 101 [^\r\n]*\r\n((?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:[^\r\n]*\r\n)*)\r\n")

log = logging.getLogger("worker")


class Lines(logging.Formatter):
    """Each line of a record with its level in front, for the engine."""

    def format(self, record: logging.LogRecord) -> str:
        level = 3 if record.levelno >= logging.ERROR else 4 if record.levelno >= logging.WARNING else 6
        if record.levelno < logging.INFO:
            level = 7
        return "\n".join(f"<{level}>{line}" for line in super().format(record).splitlines())


def alias_the_package() -> None:
    """Lets handlers say mod_pywebsocket, the older name: for every module of the package, else there would be two of each."""
    import pywebsocket3

    names = [name for _, name, _ in pkgutil.walk_packages(pywebsocket3.__path__, "pywebsocket3.")]
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as why:
            # What needs a part of Python that this one has not: the package's own server.
            log.debug("%s: %s", name, why)
    older = {"_stream_base": "stream", "_stream_hybi": "stream", "handshake._base": "handshake.base"}
    for name in ["pywebsocket3", *names]:
        if name in sys.modules:
            sys.modules[name.replace("pywebsocket3", "mod_pywebsocket", 1)] = sys.modules[name]
    for old, new in older.items():
        sys.modules.setdefault("mod_pywebsocket." + old, sys.modules["pywebsocket3." + new])


try:
    from pywebsocket3 import common, dispatch, handshake, http_header_util, stream, util
    from pywebsocket3.handshake import base as handshake_base
except ImportError as missing:
    sys.stderr.write(f"<2>{sys.executable} has no pywebsocket3 ({missing}): {sys.executable} -m pip install pywebsocket3\n")
    sys.exit(1)


def mask(self: Any, data: bytes) -> bytes:
    """In the place of RepeatedXorMasker.mask, twenty times as fast: one exclusive or of two long numbers."""
    key, at = self._masking_key, self._masking_key_index
    length, period = len(data), len(key)
    pattern = ((key[at:] + key[:at]) * (length // period + 1))[:length]
    self._masking_key_index = (at + length) % period
    return (int.from_bytes(data, "little") ^ int.from_bytes(pattern, "little")).to_bytes(length, "little")


class Link:
    """The socket to the engine that belongs to one connection."""

    def __init__(self, fd: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self.descriptors: List[int] = []

    def say(self, kind: bytes, payload: Any = None) -> None:
        body = b"" if payload is None else json.dumps(payload).encode()
        try:
            self.socket.sendall(struct.pack("!cI", kind, len(body)) + body)
        except OSError as why:
            # The engine is gone, which is seen where its words are awaited.
            log.debug("a link: %s", why)

    def hear(self) -> Tuple[bytes, bytes]:
        """The next message; an empty kind is the end."""
        try:
            head = self._exactly(5)
            kind, length = struct.unpack("!cI", head)
            return kind, self._exactly(length)
        except (OSError, EOFError, struct.error):
            return b"", b""

    def _exactly(self, length: int) -> bytes:
        pieces: List[bytes] = []
        while length > 0:
            piece, descriptors = receive(self.socket, min(length, PIECE))
            self.descriptors += descriptors
            if not piece:
                raise EOFError
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []
        self.socket.close()


def receive(source: socket.socket, length: int) -> Tuple[bytes, List[int]]:
    """Bytes, and the descriptors that came with them."""
    size = array.array("i").itemsize
    data, ancillary, _, _ = source.recvmsg(length, socket.CMSG_SPACE(2 * size), socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % size])
    return data, list(descriptors)


class Connection:
    """What handlers know as `request.connection`: mod_python's, as the package mimics it.

    Until the handshake is done there is no stream. What is written is kept; who reads gets the stream for it.
    """

    def __init__(self, session: Session, opening: Dict[str, Any]) -> None:
        self.remote_addr = tuple(opening["remote"])
        self.local_addr = tuple(opening["local"])
        self._session = session
        self._lines = [line.encode("utf-8", "replace") + b"\r\n" for line in session.head]
        self._idle: Optional[float] = opening["idle_timeout"]
        self._ping: Optional[Tuple[int, int]] = opening["ping"]
        self._lock = threading.Lock()
        self._socket: Optional[socket.socket] = None
        self._input = bytearray()
        self._ended = False
        self._moved = time.monotonic()
        self.kept = bytearray()
        self.deadline: Optional[float] = None
        """When reading is given up, if the connection is closing."""

    def get_memorized_lines(self) -> List[bytes]:
        return self._lines

    def begin(self, descriptor: int, early: bytes, written: bool) -> None:
        """The stream is there; `written`: what was kept has been sent already."""
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        if self._ping and self._socket.family != socket.AF_UNIX:
            interval, patience = self._ping
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, min(interval, LONGEST_KEEPALIVE))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, min(max(patience // 3, 1), LONGEST_KEEPALIVE))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        self._moved = time.monotonic()
        self._input += early
        kept, self.kept = bytes(self.kept), bytearray()
        if kept and not written:
            self.write(kept)

    def write(self, data: bytes) -> int:
        with self._lock:
            if self._ended:
                raise BrokenPipeError("the connection has ended")
            if self._socket is None:
                self.kept += data
                return len(data)
            rest = memoryview(data)
            while rest:
                try:
                    rest = rest[self._socket.send(rest) :]
                    self._moved = time.monotonic()
                except BlockingIOError:
                    if not self._wait(select.POLLOUT, PATIENCE):
                        raise TimeoutError(f"the client has taken nothing for {PATIENCE:.0f} seconds") from None
        return len(data)

    def try_write(self, data: bytes) -> None:
        """Writes if that needs no waiting."""
        if self._lock.acquire(blocking=False):
            try:
                if self._socket is not None:
                    self._socket.send(data)
            except OSError:
                pass
            finally:
                self._lock.release()

    def read(self, length: int) -> bytes:
        """As many bytes, but for the end of the stream."""
        if self._socket is None and not self._ended:
            self._session.claim()
        while len(self._input) < length and not self._ended:
            self._ended = not self._fill(length - len(self._input))
        data = bytes(self._input[:length])
        del self._input[:length]
        return data

    def _fill(self, missing: int) -> bool:
        """Reads what there is; False at the end."""
        while True:
            assert self._socket is not None
            try:
                data = self._socket.recv(min(max(missing, 16384), PIECE))
                self._moved = time.monotonic()
                self._input += data
                return bool(data)
            except BlockingIOError:
                if not self._wait_for_input():
                    return False

    def _wait_for_input(self) -> bool:
        now = time.monotonic()
        limits = [] if self.deadline is None else [self.deadline - now]
        if self._idle is not None:
            limits.append(self._moved + self._idle - now)
        if not limits:
            return self._wait(select.POLLIN, None)
        if self._wait(select.POLLIN, max(min(limits), 0)):
            return True
        if self.deadline is None and self._idle is not None:
            if self._moved + self._idle <= time.monotonic():
                self._session.close("server", 1001, "idle timeout")
            return True
        return self.deadline is None or time.monotonic() < self.deadline

    def _wait(self, event: int, seconds: Optional[float]) -> bool:
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, event)
        return bool(poll.poll(None if seconds is None else int(seconds * 1000) + 1))

    def cut(self) -> None:
        """Ends the stream both ways; whoever waits in it sees that."""
        self._ended = True
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def end(self, linger: bool) -> None:
        """Closes. Bytes that the client has on its way would turn it into a reset, which takes our last words with it."""
        if self._socket is None:
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
            until, left = time.monotonic() + LINGER, LINGER_BYTES if linger else 0
            while left > 0 and self._wait(select.POLLIN, max(until - time.monotonic(), 0)):
                count = len(self._socket.recv(PIECE))
                left = left - count if count else 0
        except OSError:
            pass
        self._ended = True
        self._socket.close()


class Request:
    """What handlers get: mod_python's request, as the package mimics it."""

    _dispatcher: Dispatcher
    server_terminated: bool

    def __init__(self, session: Session, opening: Dict[str, Any]) -> None:
        self._session = session
        self.connection = Connection(session, opening)
        head = "\r\n".join(session.head[1:]) + "\r\n\r\n"
        self.headers_in = http.client.parse_headers(io.BytesIO(head.encode("utf-8", "replace")))
        self.method = "GET"
        self.protocol = "HTTP/1.1"
        self.uri = self.unparsed_uri = http_header_util.parse_uri(opening["uri"])[2] or opening["uri"]
        self.user: Optional[str] = opening["user"]
        """REMOTE_USER, as mod_python has it."""
        self._secure: bool = opening["secure"]

    def is_https(self) -> bool:
        return self._secure


class BoundedInflater:
    """In the place of the package's: it stops at the longest message."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)

    def filter(self, data: bytes) -> bytes:
        limit = self._session.max_message_size
        data += b"\x00\x00\xff\xff"
        message = b""
        while data:
            message += self._inflater.decompress(data, limit - len(message) + 1)
            if len(message) > limit:
                self._session.refuse_message()
            # What follows a last block begins a new stream (RFC 7692 section 7.2.3.4).
            data = self._inflater.unused_data or self._inflater.unconsumed_tail
            if self._inflater.eof:
                self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        return message


class BoundedStream(stream.Stream):
    """The package's stream, with a longest message, and an account of what went through it."""

    def __init__(self, request: Request, options: Any) -> None:
        super().__init__(request, options)
        self._session = request._session
        for message_filter in options.incoming_message_filters:
            framer = getattr(message_filter, "_parent", None)
            if hasattr(framer, "_rfc1979_inflater"):
                framer._rfc1979_inflater = BoundedInflater(self._session)

    def receive_bytes(self, length: int) -> bytes:
        if length > max(self._session.max_message_size, MAX_CONTROL, HEADER):
            self._session.refuse_message()
        return super().receive_bytes(length)

    def _receive_frame_as_frame_object(self) -> Any:
        """Control frames may stand between the fragments of a message (RFC 6455 section 5.4), where the package takes none."""
        while True:
            frame = super()._receive_frame_as_frame_object()
            plain = frame.fin and not (frame.rsv1 or frame.rsv2 or frame.rsv3) and len(frame.payload) <= MAX_CONTROL
            if not (self._received_fragments and plain and common.is_control_opcode(frame.opcode)):
                return frame
            if frame.opcode == common.OPCODE_PING:
                self._process_ping_message(frame.payload)
            elif frame.opcode == common.OPCODE_PONG:
                self._process_pong_message(frame.payload)
            else:
                # The rest of the message will not come.
                self._received_fragments = []
                for message_filter in self._options.incoming_message_filters:
                    message_filter._decompress_next_message = False
                return frame

    def _get_message_from_frame(self, frame: Any) -> Optional[bytes]:
        if not common.is_control_opcode(frame.opcode):
            so_far = sum(map(len, self._received_fragments))
            if so_far + len(frame.payload) > self._session.max_message_size:
                self._session.refuse_message()
        message: Optional[bytes] = super()._get_message_from_frame(frame)
        if message is not None and not common.is_control_opcode(self._original_opcode):
            self._session.count(self._session.received, len(message))
        return message

    def send_message(self, message: Any, end: bool = True, binary: bool = False) -> None:
        super().send_message(message, end, binary)
        as_bytes = not isinstance(message, str) or message.isascii()
        size = len(message) if as_bytes else len(message.encode("utf-8", "replace"))
        self._session.count(self._session.sent, size, end)

    def _send_closing_handshake(self, code: Optional[int], reason: str) -> None:
        by = "client" if self._request.client_terminated else "handler"
        theirs = self._request.ws_close_code
        self._session.note_end(by, theirs if by == "client" else 1005 if code is None else code)
        super()._send_closing_handshake(code, reason)


class Session:
    """One connection, from its handshake to its end."""

    def __init__(self, worker: Worker, link: Link) -> None:
        self._worker = worker
        self.link = link
        self.request: Optional[Request] = None
        self.head: List[str] = []
        self.max_message_size = 0
        self._close_timeout = 0.0
        self._closing = threading.Lock()
        self._taken = False
        self._ended: Optional[Tuple[str, int]] = None
        self.received = [0, 0]
        self.sent = [0, 0]
        self.cut_at: Optional[float] = None
        """When the worker's clock cuts the stream."""
        self.orphaned = False

    def run(self) -> None:
        try:
            kind, payload = self.link.hear()
            if kind == b"o":
                self._serve(json.loads(payload))
        except Exception:
            log.exception("a connection failed")
        finally:
            self._worker.forget(self)
            self.link.close()

    def _serve(self, opening: Dict[str, Any]) -> None:
        self.head = [opening["line"]] + [f"{name}: {value}" for name, value in opening["headers"]]
        self.max_message_size = opening["max_message_size"]
        self._close_timeout = opening["close_timeout"]
        try:
            request = self.request = Request(self, opening)
        except (ValueError, http.client.HTTPException) as why:
            # The package or Python cannot read what httpd could: a URI, or more than a hundred header lines.
            self.link.say(b"r", [400, str(why)])
            return
        dispatcher = self._worker.dispatcher
        linger = False
        try:
            if self._shake_hands(request, dispatcher):
                request._dispatcher = dispatcher
                linger = self._transfer(request, dispatcher)
        finally:
            if self._taken:
                self._worker.unwatch(self)
                by, code = self._ended or ("lost", 1006)
                self.link.say(b"e", {"by": by, "code": code, "received": self.received, "sent": self.sent})
                request.connection.end(linger)

    def _shake_hands(self, request: Request, dispatcher: Dispatcher) -> bool:
        """True when the session is open."""
        try:
            if dispatcher.get_handler_suite(request.uri) is None:
                self.link.say(b"d")
                return False
            handshake.do_handshake(request, dispatcher)
        except (dispatch.DispatchException, handshake.HandshakeException) as why:
            self._refuse(why.status or 400, str(why))
        except handshake.VersionException as why:
            self._refuse(400, str(why))
        except handshake.AbortedByUserException as why:
            log.info("%s: dropped by the handler: %s", request.uri, why)
            if self._must_answer():
                self.claim()
            else:
                self.link.say(b"q")
        except Exception as why:
            log.exception("%s: the handshake failed", request.uri)
            self._refuse(500, str(why))
        else:
            head = HEAD.fullmatch(request.connection.kept) if not self._taken else None
            if head is None:
                self.claim()
            else:
                lines = head.group(1).decode("utf-8", "replace").split("\r\n")[:-1]
                pairs = (line.split(":", 1) for line in lines)
                self._take(b"a", [[name, value.strip()] for name, value in pairs])
            return self._taken
        return False

    def _must_answer(self) -> bool:
        """The handler has spoken to the client already."""
        return self._taken or bool(self.request and self.request.connection.kept)

    def _refuse(self, status: int, reason: str) -> None:
        if not self._must_answer():
            self.link.say(b"r", [status, reason])
            return
        self.claim()
        if self._taken and self.request:
            phrase = http.client.responses.get(status, "")
            text = f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            try:
                self.request.connection.write(text.encode())
            except OSError as why:
                log.debug("a refusal: %s", why)

    def claim(self) -> None:
        """Gets the stream: what the client is answered comes from here."""
        if not self._taken:
            self._take(b"c", None)

    def _take(self, word: bytes, payload: Any) -> None:
        self.link.say(word, payload)
        kind, early = self.link.hear()
        request = self.request
        assert request is not None
        if kind != b"t" or not self.link.descriptors:
            request.connection.cut()
            return
        self._taken = True
        request.connection.begin(self.link.descriptors.pop(0), early, word == b"a")
        self._worker.watch(self)

    def _transfer(self, request: Request, dispatcher: Dispatcher) -> bool:
        """True when the client is to close first."""
        try:
            dispatcher.transfer_data(request)
        except handshake.AbortedByUserException as why:
            log.info("%s: aborted by the handler: %s", request.uri, why)
            return False
        except Exception as why:
            if isinstance(why, OSError) or (self._ended and self._ended[0] != "handler"):
                # Most likely the client or the engine was faster.
                log.info("%s: %s", request.uri, why)
            else:
                log.exception("%s: the handler failed", request.uri)
        return self._ended is not None

    def count(self, way: List[int], size: int, end: bool = True) -> None:
        way[0] += end
        way[1] += size

    def note_end(self, by: str, code: int) -> None:
        """The first counts; from then on the client has only so much time."""
        if self._ended is None:
            self._ended = (by, code)
        if self.request and self.request.connection.deadline is None:
            self.request.connection.deadline = time.monotonic() + self._close_timeout

    def close(self, by: str, code: int, reason: str) -> None:
        """Sends a Close, if none was sent; from whichever thread."""
        request = self.request
        with self._closing:
            if request is None:
                return
            self.note_end(by, code)
            if getattr(request, "server_terminated", False):
                return
            request.server_terminated = True
        short = reason.encode()[: MAX_CONTROL - 2].decode("utf-8", "ignore")
        frame = stream.create_close_frame(stream.create_closing_handshake_body(code, short))
        request.connection.try_write(frame)

    def refuse_message(self) -> None:
        """The message that is coming is too long."""
        self.close("violation", 1009, f"messages have at most {self.max_message_size} bytes")
        raise stream.ConnectionTerminatedException("a message is longer than WebSocketMaxMessageSize allows")

    def told(self) -> None:
        """The engine has said something, or is gone."""
        kind, payload = self.link.hear()
        if kind == b"x":
            code, reason = json.loads(payload)
            self.cut_at = time.monotonic() + self._close_timeout
        else:
            code, reason = 1012, "server is restarting"
            self.orphaned = True
            self.cut_at = time.monotonic() + LAST_WORDS
        self.close("server", code, reason)

    def cut(self) -> None:
        self.cut_at = None
        if self.request:
            self.request.connection.cut()


class Dispatcher(dispatch.Dispatcher):
    """The package's, with handlers that are loaded one by one: a broken one costs the others nothing."""

    def _source_handler_files_in_dir(self, root_dir: str, scan_dir: str, outside: bool, _encoding: Any) -> None:
        root = os.path.realpath(root_dir)
        for path in handler_files(root, os.path.realpath(scan_dir), outside):
            resource = "/" + os.path.relpath(path, root)[: -len("_wsh.py")]
            try:
                with tokenize.open(path) as file:
                    code = compile(file.read(), path, "exec", dont_inherit=True)
                self._handler_suite_map[resource] = dispatch._source_handler_file(code)
            except (Exception, SystemExit) as why:
                self._source_warnings.append(f"{path}: {why}")
            else:
                log.debug("%s: %s", resource, path)

    def add_aliases(self, path: str) -> None:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                words = line.split()
                if not words or words[0].startswith("#"):
                    continue
                if len(words) != 2:
                    self._source_warnings.append(f"{path}, line {number}: not \"alias existing\"")
                    continue
                try:
                    self.add_resource_path_alias(*words)
                except dispatch.DispatchException as why:
                    self._source_warnings.append(f"{path}, line {number}: {why}")


def is_below(path: str, root: str) -> bool:
    return os.path.commonpath([path, root]) == root


def handler_files(root: str, scan: str, outside: bool) -> Iterator[str]:
    for folder, folders, names in os.walk(scan):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not name.endswith("_wsh.py"):
                continue
            if outside or is_below(os.path.realpath(path), root):
                yield path
            else:
                log.warning("%s leads out of %s: not loaded (WebSocketPythonOutsideRoot)", path, root)


class Worker:
    """The connections, and the thread that hears what the engine says to them."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self._lock = threading.Condition()
        self._sessions: Set[Session] = set()
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._waker.setblocking(False)
        threading.Thread(target=self._listen, name="links", daemon=True).start()

    def run(self, control: socket.socket) -> None:
        """Serves until the engine wants no more of this worker, and the last connection is over."""
        while True:
            try:
                word, descriptors = receive(control, 1)
            except OSError as why:
                log.debug("the engine is gone: %s", why)
                break
            if not word:
                break
            for descriptor in descriptors:
                session = Session(self, Link(descriptor))
                with self._lock:
                    self._sessions.add(session)
                try:
                    threading.Thread(target=session.run, daemon=True).start()
                except (RuntimeError, MemoryError) as why:
                    # The limit of threads. The engine hears the link's end, and those that are open go on.
                    log.error("no thread for another connection: %s", why)
                    self.forget(session)
                    session.link.close()
        with self._lock:
            while self._sessions:
                self._lock.wait(LAST_WORDS)
                if all(session.orphaned and session.cut_at is None for session in self._sessions):
                    # What is left waits for something else than its client.
                    break

    def forget(self, session: Session) -> None:
        with self._lock:
            self._sessions.discard(session)
            self._lock.notify_all()

    def watch(self, session: Session) -> None:
        with self._lock:
            self._selector.register(session.link.socket, selectors.EVENT_READ, session)
        self._rouse()

    def unwatch(self, session: Session) -> None:
        with self._lock:
            try:
                self._selector.unregister(session.link.socket)
            except (KeyError, ValueError):
                pass

    def _rouse(self) -> None:
        try:
            self._waker.send(b"w")
        except BlockingIOError:
            pass

    def _listen(self) -> None:
        while True:
            with self._lock:
                due = [s.cut_at for s in self._sessions if s.cut_at is not None]
            timeout = max(min(due) - time.monotonic(), 0) if due else None
            for key, _ in self._selector.select(timeout):
                if key.data is None:
                    self._wake.recv(4096)
                    continue
                session: Session = key.data
                session.told()
                if session.orphaned:
                    self.unwatch(session)
            now = time.monotonic()
            with self._lock:
                for session in self._sessions:
                    if session.cut_at is not None and session.cut_at <= now:
                        session.cut()


def die_with(parent: int) -> None:
    """Whatever handlers do, the worker does not outlive the engine."""
    try:
        # PR_SET_PDEATHSIG; LAST_WORDS are for an engine that ends in peace, and waits.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (OSError, AttributeError) as why:
        log.debug("prctl: %s", why)
    if os.getppid() != parent:
        sys.exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scan")
    parser.add_argument("--map")
    parser.add_argument("--outside-root", action="store_true")
    parser.add_argument("--log-level", choices=LEVELS, default="warn")
    parser.add_argument("--parent", type=int)
    parser.add_argument("root")
    options = parser.parse_args()

    # What handlers print is for the log, and what they read is nothing.
    control = socket.socket(fileno=os.dup(1))
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(Lines("%(message)s"))
    level = LEVELS[options.log_level]
    logging.basicConfig(level=level, handlers=[output])
    # It has a line for each handshake.
    logging.getLogger("pywebsocket3").setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
    threading.excepthook = lambda args: log.error(
        "a thread of a handler failed",
        exc_info=(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback),
    )
    if options.parent is not None:
        die_with(options.parent)

    alias_the_package()
    util.RepeatedXorMasker.mask = mask
    handshake_base.Stream = BoundedStream
    root = os.path.realpath(options.root)
    scan = os.path.realpath(os.path.join(root, options.scan or ""))
    if not is_below(scan, root):
        log.critical("the folder to scan, %s, is not below %s", scan, root)
        sys.exit(1)
    # Behind everything else, so that a handler's neighbour hides no module.
    sys.path.append(root)
    dispatcher = Dispatcher(root, scan, options.outside_root)
    if options.map:
        dispatcher.add_aliases(options.map)
    for warning in dispatcher.source_warnings():
        log.warning("%s", warning)
    Worker(dispatcher).run(control)
    logging.shutdown()
    # Threads that handlers have started may never end.
    os._exit(0)


if __name__ == "__main__":
    main()
