"""Breaks off."""

from pywebsocket3 import handshake


def web_socket_do_extra_handshake(request):
    pass


def web_socket_transfer_data(request):
    request.ws_stream.send_message("so far")
    raise handshake.AbortedByUserException("and no further")
