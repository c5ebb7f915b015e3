"""Bulk: "receive 1000" sends that many bytes, "send" takes a message and tells its length."""


def web_socket_do_extra_handshake(request):
    request.ws_extension_processors = []


def web_socket_transfer_data(request):
    while True:
        command = request.ws_stream.receive_message()
        if command is None:
            return
        words = command.split()
        if words[0] == "receive":
            request.ws_stream.send_message(b"a" * int(words[1]), binary=True)
        else:
            request.ws_stream.send_message(str(len(request.ws_stream.receive_message())))
