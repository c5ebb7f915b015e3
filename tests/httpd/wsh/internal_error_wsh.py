"""Does what it may not."""

from pywebsocket3 import msgutil


def web_socket_do_extra_handshake(request):
    pass


def web_socket_transfer_data(request):
    raise msgutil.BadOperationException("on purpose")
