#!/usr/bin/env bash
# Versions: Mojolicious 9.31 (Debian's libmojolicious-perl 9.31+dfsg-1), as a client that has agreed on permessage-deflate. Needs perl and apt-get.
# Guess:    the payload of a compressed message ends where RFC 7692 section 7.2.1 says: after DEFLATE with 00 00 ff ff taken away, which
#           for "hello" leaves ca 48 cd c9 c9 07 00, 7 bytes.
# Seen:     12 bytes: the flush marker 00 00 ff ff is still in the middle, and one byte of a second, empty block follows. It inflates to
#           "hello" all the same, but who counts on 7 bytes, or on 00 00 ff ff never being there, is wrong; each message costs 5 bytes more.
#           The empty message is one byte, 00: compressed, with nothing in it.
set -uo pipefail
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 2
apt-get download libmojolicious-perl=9.31+dfsg-1 >apt.log 2>&1 && dpkg -x libmojolicious-perl_*.deb root || { cat apt.log; exit 2; }
cat >client.pl <<'P'
use Mojo::UserAgent;
use Mojo::IOLoop;
my $ua = Mojo::UserAgent->new;
$ua->websocket("ws://127.0.0.1:$ARGV[0]/" => {'Sec-WebSocket-Extensions' => 'permessage-deflate'} => sub {
  my ($ua, $tx) = @_;
  $tx->send({text => ''});
  $tx->send({text => 'hello'});
  $tx->on(finish => sub { Mojo::IOLoop->stop });
});
Mojo::IOLoop->start;
P
cat >run.py <<'P'
import base64, hashlib, re, socket, subprocess, sys, zlib

listener = socket.create_server(("127.0.0.1", 0))
client = subprocess.Popen(["perl", "-Iroot/usr/share/perl5", "client.pl", str(listener.getsockname()[1])])
listener.settimeout(20)
peer, _ = listener.accept()
peer.settimeout(20)
stream = peer.makefile("rb")
head = b"".join(iter(stream.readline, b"\r\n")).decode()
key = re.search(r"(?im)^sec-websocket-key: *(\S+)", head)[1]
accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
peer.sendall(
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n".encode()
)
inflate, seen = zlib.decompressobj(-15), []
for _ in range(2):
    first, length = stream.read(2)
    mask = stream.read(4)
    payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(stream.read(length & 127)))
    text = inflate.decompress(payload + b"\0\0\xff\xff").decode()
    print(f"first byte {first:02x}, payload {payload.hex(' ')}, text {text!r}")
    seen.append((first, payload.hex(), text))
peer.close()
stream.close()
client.wait(20)
sys.exit(0 if seen == [(0xC1, "00", ""), (0xC1, "ca48cdc9c907000000ffff00", "hello")] else 1)
P
python3 run.py
