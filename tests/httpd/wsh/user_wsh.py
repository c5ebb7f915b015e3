"""What is known of the client."""


def web_socket_do_extra_handshake(request):
    pass


def web_socket_transfer_data(request):
    known = [request.user, request.uri, request.is_https(), request.method, request.protocol, request.connection.remote_addr[0]]
    request.ws_stream.send_message(" ".join(map(str, known)))
