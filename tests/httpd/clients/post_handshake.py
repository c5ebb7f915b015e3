"""A WebSocket over TLS 1.3 whose client shows its certificate when it is asked, which is after the handshake (RFC 8446
section 4.6.2): post_handshake.py HOST PORT PATH SERVER-CERTIFICATE CLIENT-CERTIFICATE CLIENT-KEY. Prints the echo."""

import os
import socket
import ssl
import sys

host, port, path, authority, certificate, key = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.post_handshake_auth = True
context.load_cert_chain(certificate, key)


def read_exactly(stream, count):
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        assert piece, f"the end after {data!r}"
        data += piece
    return data


with socket.create_connection((host, int(port)), timeout=30) as tcp:
    with context.wrap_socket(tcp, server_hostname=host) as tls:
        tls.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += read_exactly(tls, 1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        for message in (b"shown", b"x" * 100):
            mask = os.urandom(4)
            masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(message))
            tls.sendall(bytes([0x82, 0x80 | len(message)]) + mask + masked)
            frame = read_exactly(tls, 2 + len(message))
            assert frame == bytes([0x82, len(message)]) + message, frame
            print(message.decode())
