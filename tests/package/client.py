"""client.py PORT PATH: a WebSocket of 127.0.0.1, line by line. What it reads it sends, what comes it prints; at the end it
prints "closed" with the code."""

import base64
import os
import selectors
import socket
import struct
import sys

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def frame(opcode, payload):
    # All of them short, and a mask of zeros changes nothing.
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


def open_socket(port, path):
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            break
        head += byte
    status = head.split(b"\r\n")[0].decode()
    if " 101 " not in status:
        sys.exit(f"refused: {status}")
    print("open", flush=True)
    return connection


def exactly(connection, length):
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            print("closed without a Close", flush=True)
            sys.exit(1)
        data += part
    return data


def receive(connection):
    """A frame that has come; False after a Close."""
    first, length = exactly(connection, 2)
    if length == 126:
        (length,) = struct.unpack(">H", exactly(connection, 2))
    payload = exactly(connection, length)
    if first & 15 == TEXT:
        print(payload.decode(), flush=True)
    elif first & 15 == PING:
        connection.sendall(frame(PONG, payload))
    elif first & 15 == CLOSE:
        connection.sendall(frame(CLOSE, payload[:2]))
        print("closed", *struct.unpack(">H", payload[:2]), flush=True)
        return False
    return True


def main():
    connection = open_socket(int(sys.argv[1]), sys.argv[2])
    selector = selectors.DefaultSelector()
    selector.register(connection, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is connection:
                if not receive(connection):
                    return
            elif line := sys.stdin.readline():
                connection.sendall(frame(TEXT, line.rstrip("\n").encode()))
            else:
                connection.sendall(frame(CLOSE, struct.pack(">H", 1000)))
                selector.unregister(sys.stdin)


main()
