"""Asks over UDP and says what came back; with --serve, answers, and says first where it is seen."""

import os
import socket
import sys
import time

PROBE = ("198.19.255.1", 3478)

if sys.argv[1] == "--serve":
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("", 7000))
    server.sendto(b"\x00\x01\x00\x00\x21\x12\xa4\x42" + os.urandom(12), PROBE)
    response, _ = server.recvfrom(2048)
    at = response.index(b"\x00\x20\x00\x08")
    address = bytes(a ^ b for a, b in zip(response[at + 8 : at + 12], b"\x21\x12\xa4\x42"))
    print(socket.inet_ntoa(address), flush=True)
    while True:
        data, client = server.recvfrom(2048)
        server.sendto(b"hello over UDP", client)

host, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
client = socket.socket(family, socket.SOCK_DGRAM)
client.settimeout(2)
started = time.monotonic()
try:
    client.sendto(b"?", (host, port))
    data, source = client.recvfrom(2048)
except TimeoutError:
    sys.exit("timed out")
print(data.decode(), "from", "%s:%d" % source[:2])
if time.monotonic() - started >= 0.2:
    print("slower than 200 ms")
