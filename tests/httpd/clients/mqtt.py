"""A foreign client: paho-mqtt over WebSockets, against the broker behind the path in the second argument.

The first argument is the port; the third one, where it is TLS, the certificate to trust. A line of the standard input,
"publish 20" or "hear 20", is answered when so many messages have come: to this client and all others. A connection that is lost
is not opened again: that is a failure.
"""

import queue
import sys

import paho.mqtt.client as mqtt

port, path, *certificate = sys.argv[1:]
come = queue.Queue()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, transport="websockets", reconnect_on_failure=False)
client.ws_set_options(path=path)
if certificate:
    client.tls_set(ca_certs=certificate[0])
client.on_connect = lambda client, data, flags, reason, properties: client.subscribe("room/#", qos=1)
client.on_subscribe = lambda *_: come.put(b"subscribed")
client.on_disconnect = lambda client, data, flags, reason, properties: come.put(f"lost: {reason}".encode())
client.on_message = lambda client, data, message: come.put(message.payload)
client.connect("127.0.0.1", int(port))
client.loop_start()


def next_one():
    return come.get(timeout=30)


assert next_one() == b"subscribed"
print("subscribed", flush=True)
for line in sys.stdin:
    word, count = line.split()
    payloads = [b"%d " % number + b"x" * (number * 997 % 70_000) for number in range(int(count))]
    for payload in payloads if word == "publish" else ():
        client.publish("room/7", payload, qos=1)
    assert [next_one() for _ in payloads] == payloads
    print("heard", flush=True)
client.disconnect()
last = next_one()
assert last == b"lost: Normal disconnection", last[:100]
