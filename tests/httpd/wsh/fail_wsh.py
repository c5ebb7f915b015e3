"""Has a bug, before the 101 or after it, by the query."""


def web_socket_do_extra_handshake(request):
    if request.uri.endswith("?early"):
        raise KeyError("early")


def web_socket_transfer_data(request):
    raise KeyError("late")
