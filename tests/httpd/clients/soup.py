"""libsoup 3, GNOME's, through its bindings. Usage: soup.py URL"""

import sys

import gi

gi.require_version("Soup", "3.0")
from gi.repository import GLib, Soup  # noqa: E402

TEXTS = ["hello", "", "s" * 100_000, "äöü€", "the same", "the same", "the same"]
loop, state = GLib.MainLoop(), {"received": 0, "error": "nothing came for 30 seconds"}


def finish(error):
    state["error"] = error
    loop.quit()


def on_message(socket, kind, data):
    text = data.get_data().decode()
    if kind != Soup.WebsocketDataType.TEXT or text != TEXTS[state["received"]]:
        return finish(f"text {state['received']} came back changed")
    state["received"] += 1
    if state["received"] < len(TEXTS):
        socket.send_text(TEXTS[state["received"]])
    else:
        socket.close(4321, "done")


def on_connected(session, result):
    try:
        socket = session.websocket_connect_finish(result)
    except GLib.Error as error:
        return finish(error.message)
    state["socket"] = socket
    socket.connect("message", on_message)
    socket.connect("closed", lambda socket: finish(None if state["received"] == len(TEXTS) else "closed early"))
    socket.send_text(TEXTS[0])


session = Soup.Session()
session.add_feature_by_type(Soup.WebsocketExtensionManager)
message = Soup.Message.new("GET", sys.argv[1])
session.websocket_connect_async(message, "http://" + sys.argv[1].split("/")[2], ["echo"], 0, None, on_connected)
GLib.timeout_add_seconds(30, loop.quit)
loop.run()
if state["error"]:
    sys.exit(state["error"])
extensions = [type(extension).__name__ for extension in state["socket"].get_extensions()]
print(f"closed {state['socket'].get_close_code()} after {state['received']} texts, protocol {state['socket'].get_protocol()}, {extensions}")
