"""Without extensions, whatever the client offers."""


def web_socket_do_extra_handshake(request):
    request.ws_extension_processors = []


def web_socket_transfer_data(request):
    names = [extension.name() for extension in request.ws_requested_extensions or ()]
    request.ws_stream.send_message(",".join(names))
