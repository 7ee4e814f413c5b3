"""What the tests reach: HTTP, a UDP echo and a name server on one machine's addresses, and HTTP on its loopback."""

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

V4, V6 = sys.argv[1:]


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello over TCP\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Hello6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


def answer(data):
    """Every name is this machine: A and AAAA."""
    end = data.index(0, 12) + 5
    question = data[12:end]
    kind = int.from_bytes(question[-4:-2], "big")
    family, address = {1: (socket.AF_INET, V4), 28: (socket.AF_INET6, V6)}.get(kind, (None, None))
    records = b""
    if family:
        packed = socket.inet_pton(family, address)
        records = b"\xc0\x0c" + question[-4:] + (60).to_bytes(4, "big") + len(packed).to_bytes(2, "big") + packed
    return data[:2] + b"\x81\x80\x00\x01" + (b"\x00\x01" if family else b"\x00\x00") + b"\x00" * 4 + question + records


def datagrams(family, address, port, reply):
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.bind((address, port))

    def serve():
        while True:
            data, client = server.recvfrom(2048)
            server.sendto(reply(data), client)

    threading.Thread(target=serve, daemon=True).start()


datagrams(socket.AF_INET, V4, 8001, lambda _: b"hello over UDP")
datagrams(socket.AF_INET, V4, 53, answer)
servers = [ThreadingHTTPServer((V4, 8000), Hello), Hello6((V6, 8000), Hello), ThreadingHTTPServer(("127.0.0.1", 8002), Hello)]
for server in servers[1:]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdout.close()
servers[0].serve_forever()
