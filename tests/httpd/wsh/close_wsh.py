"""Closes as it is told: "4000 because"."""

from pywebsocket3 import common


def web_socket_do_extra_handshake(request):
    pass


def web_socket_transfer_data(request):
    message = request.ws_stream.receive_message()
    if message is not None:
        code, reason = message.split(" ", 1)
        request.ws_stream.close_connection(int(code), reason)


def web_socket_passive_closing_handshake(request):
    if request.ws_close_code == common.STATUS_NO_STATUS_RECEIVED:
        return None, ""
    return 4999, "you said %d %s" % (request.ws_close_code, request.ws_close_reason)
