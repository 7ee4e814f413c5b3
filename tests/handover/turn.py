"""A TURN client of a few lines, over UDP or TCP, for one box on loopback."""

import hashlib
import hmac
import ipaddress
import base64
import os
import socket
import struct
import time

COOKIE = 0x2112A442
ALLOCATE, REFRESH, PERMISSION, CHANNEL = 3, 4, 8, 9
SUCCESS, ERROR = 0x0100, 0x0110


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def xor_address(address):
    ip = int(ipaddress.IPv4Address(address[0])) ^ COOKIE
    return struct.pack("!BBHI", 0, 1, address[1] ^ (COOKIE >> 16), ip)


def read_xor_address(value):
    port, ip = struct.unpack("!HI", value[2:8])
    return str(ipaddress.IPv4Address(ip ^ COOKIE)), port ^ (COOKIE >> 16)


def attributes(message):
    found, rest = {}, message[20:]
    while len(rest) >= 4:
        kind, length = struct.unpack("!HH", rest[:4])
        found.setdefault(kind, rest[4 : 4 + length])
        rest = rest[4 + length + (-length % 4) :]
    return found


class Client:
    """One five-tuple. `old` requests keep the first nonce, so that a 438 is an error."""

    def __init__(self, server, secret, user, tcp=False):
        self.tcp, self.server = tcp, server
        if tcp:
            self.socket = socket.create_connection(server)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.buffer = b""
        else:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind(("127.0.0.1", 0))
            self.socket.connect(server)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.username = "%d:%s" % (time.time() + 3600, user)
        mac = hmac.new(secret.encode(), self.username.encode(), hashlib.sha1).digest()
        self.password = base64.b64encode(mac).decode()
        self.realm = self.nonce = self.key = None
        self.payloads = []

    def send(self, message):
        if self.tcp:
            message += bytes(-len(message) % 4)
            self.socket.sendall(message)
        else:
            self.socket.send(message)

    def receive(self, timeout):
        """The next whole message; None if there is none in time."""
        self.socket.settimeout(timeout)
        try:
            if not self.tcp:
                return self.socket.recv(65536)
            while True:
                if len(self.buffer) >= 4:
                    first, length = struct.unpack("!HH", self.buffer[:4])
                    length = 4 + length + (-length % 4) if first & 0xC000 else 20 + length
                    if len(self.buffer) >= length:
                        message, self.buffer = self.buffer[:length], self.buffer[length:]
                        return message
                more = self.socket.recv(65536)
                if not more:
                    raise ConnectionError("the box has closed the stream")
                self.buffer += more
        except (socket.timeout, BlockingIOError):
            return None

    def is_closed(self):
        """Whether the box closes the stream."""
        try:
            while self.receive(10):
                pass
        except OSError:
            return True
        return False

    def packet(self, method, body):
        transaction = os.urandom(12)
        if self.key:
            body += attribute(0x0006, self.username.encode())
            body += attribute(0x0014, self.realm) + attribute(0x0015, self.nonce)
            head = struct.pack("!HHI", method, len(body) + 24, COOKIE) + transaction
            body += attribute(0x0008, hmac.new(self.key, head + body, hashlib.sha1).digest())
        return struct.pack("!HHI", method, len(body), COOKIE) + transaction + body

    def ask(self, method, body=b"", stale=True):
        """Returns the attributes of a success, or raises with the code of an error."""
        message = self.packet(method, body)
        for _ in range(20):
            self.send(message)
            until = time.time() + 0.5 if not self.tcp else time.time() + 10
            while (left := until - time.time()) > 0:
                answer = self.receive(left)
                if answer is None:
                    break
                if answer[0] & 0xC0:
                    self.payloads.append(answer)
                    continue
                if answer[8:20] != message[8:20]:
                    continue
                found = attributes(answer)
                kind = struct.unpack("!H", answer[:2])[0]
                if kind == method | SUCCESS:
                    return found
                code = found[9][2] * 100 + found[9][3]
                if code == 401 and not self.key or code == 438 and stale:
                    self.realm, self.nonce = found[0x14], found[0x15]
                    parts = [self.username.encode(), self.realm, self.password.encode()]
                    self.key = hashlib.md5(b":".join(parts)).digest()
                    return self.ask(method, body, False)
                raise RuntimeError("refused with %d" % code)
        raise RuntimeError("no answer")

    def allocate(self):
        found = self.ask(ALLOCATE, attribute(0x0019, bytes([17, 0, 0, 0])))
        self.relayed = read_xor_address(found[0x16])
        return self.relayed

    def permit(self, peer):
        self.ask(PERMISSION, attribute(0x0012, xor_address(peer)))

    def bind(self, number, peer):
        body = attribute(0x000C, struct.pack("!HH", number, 0))
        self.ask(CHANNEL, body + attribute(0x0012, xor_address(peer)))

    def refresh(self):
        """With the nonce that is known: a 438 is an error."""
        self.ask(REFRESH, attribute(0x000D, struct.pack("!I", 600)), False)

    def send_channel(self, number, payload):
        self.send(struct.pack("!HH", number, len(payload)) + payload)
