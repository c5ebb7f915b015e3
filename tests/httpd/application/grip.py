"""A Django application with django-grip: an echo over a WebSocket. Its arguments are the port and the key of its GRIP proxy."""

import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=[__name__ + ".named", "django_grip.GripMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="tests",
    GRIP_PROXIES=[{"control_uri": "http://127.0.0.1:1", "key": sys.argv[2], "verify_iss": "pushpin"}],
)
django.setup()

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django_grip import websocket_only


def named(get_response):
    """Says whose the socket is: django-grip makes a response of its own, and leaves out what a view has set."""

    def middleware(request):
        response = get_response(request)
        if hasattr(request, "owner"):
            response["WebSocket-User"] = request.owner
        return response

    return middleware


@csrf_exempt
@websocket_only
def echo(request):
    ws = request.wscontext
    if ws.is_opening():
        if request.GET.get("q") == "refuse":
            return HttpResponse("not you\n", status=403)
        ws.accept()
        ws.subscribe("room")
        ws.meta["user"] = "ann"
        ws.send("welcome")
        request.owner = "ann"
    while ws.can_recv():
        message = ws.recv()
        if message is None:
            print("closed with", ws.close_code, flush=True)
            ws.close()
            break
        if message == "bye":
            ws.close(4002)
            break
        if message == "leave":
            ws.unsubscribe("room")
        if isinstance(message, str):
            ws.send("%s: %s" % (ws.meta["user"], message))
        else:
            ws.send_binary(message)

@csrf_exempt
@websocket_only
def signed(request):
    if not request.grip.signed:
        return HttpResponse("not signed\n", status=403)
    return echo(request)


urlpatterns = [path("echo", echo), path("signed", signed)]


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


make_server("127.0.0.1", int(sys.argv[1]), get_wsgi_application(), handler_class=Quiet).serve_forever()
