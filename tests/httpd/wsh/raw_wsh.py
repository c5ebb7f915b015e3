"""Private members, and bytes by hand: "?101" before the handshake's answer, else after it."""

from pywebsocket3 import stream


def web_socket_do_extra_handshake(request):
    if request.uri.endswith("?101"):
        request.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def web_socket_transfer_data(request):
    opcode, payload, fin, _, _, _ = request.ws_stream._receive_frame()
    request.ws_stream._write(stream.create_text_frame("%d %d %s" % (fin, opcode, payload.decode())))
    request.connection.write(b"\x81\x03raw")
    request.connection.read(6)
