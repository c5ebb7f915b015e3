"""Pings, and tells of Pings and Pongs."""


def web_socket_do_extra_handshake(request):
    pass


def web_socket_transfer_data(request):
    def on_ping(request, body):
        request.ws_stream.send_message("ping " + body.decode())

    def on_pong(request, body):
        request.ws_stream.send_message("pong " + body.decode())

    request.on_ping_handler = on_ping
    request.on_pong_handler = on_pong
    request.ws_stream.send_ping("are you there?")
    while request.ws_stream.receive_message() is not None:
        pass
