"""Takes nobody, and does not say so."""

from pywebsocket3 import handshake


def web_socket_do_extra_handshake(request):
    raise handshake.AbortedByUserException("not now")


def web_socket_transfer_data(request):
    raise AssertionError("there is no session")
