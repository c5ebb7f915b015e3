"""Takes everybody, but not before there is the file that the request's header Gate names."""

import os
import time


def web_socket_do_extra_handshake(request):
    gate = request.headers_in.get("Gate")
    while gate and not os.path.exists(gate):
        time.sleep(0.01)


def web_socket_transfer_data(request):
    request.ws_stream.send_message("in")
