"""Written for mod_pywebsocket, the older name: receives and sends on threads of its own."""

from mod_pywebsocket import msgutil
from mod_pywebsocket.stream import Stream
import pywebsocket3.stream

assert Stream is pywebsocket3.stream.Stream


def web_socket_do_extra_handshake(request):
    pass


def web_socket_transfer_data(request):
    receiver, sender = msgutil.MessageReceiver(request), msgutil.MessageSender(request)
    while True:
        message = receiver.receive()
        if message is None:
            return
        sender.send("heard " + message)
