"""For pages of one origin."""


def web_socket_do_extra_handshake(request):
    if request.ws_origin != "http://example.com":
        raise ValueError("not for pages of %r" % request.ws_origin)


def web_socket_transfer_data(request):
    request.ws_stream.send_message("origin is fine")
