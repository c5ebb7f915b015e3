"""Takes the whole worker with it."""

import os


def web_socket_do_extra_handshake(request):
    pass


def web_socket_transfer_data(request):
    if request.ws_stream.receive_message() == "die":
        os.abort()
