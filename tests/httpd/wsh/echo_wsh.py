"""Sends every message back; speaks the subprotocols chat and echo; "Goodbye" is the last message."""

from pywebsocket3 import common

GOODBYE = "Goodbye"


def web_socket_do_extra_handshake(request):
    for protocol in request.ws_requested_protocols or ():
        if protocol in ("chat", "echo"):
            request.ws_protocol = protocol
            return


def web_socket_transfer_data(request):
    while True:
        message = request.ws_stream.receive_message()
        if message is None:
            return
        binary = request.ws_stream.get_last_received_opcode() == common.OPCODE_BINARY
        request.ws_stream.send_message(message, binary=binary)
        if message == GOODBYE:
            return


def web_socket_passive_closing_handshake(request):
    if request.ws_close_code == common.STATUS_NO_STATUS_RECEIVED:
        return None, ""
    return request.ws_close_code, ""
