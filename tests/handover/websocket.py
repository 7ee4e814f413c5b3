"""A WebSocket client of a few lines, for one box on loopback."""

import base64
import json
import os
import socket
import struct
import time


class WebSocket:
    path = "/ws"
    protocol = None

    def __init__(self, address, patience=None):
        self.socket = socket.create_connection(address, patience)
        key = base64.b64encode(os.urandom(16)).decode()
        head = "GET " + self.path + " HTTP/1.1\r\n"
        head += "Host: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" % address
        head += "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n" % key
        if self.protocol:
            head += "Sec-WebSocket-Protocol: %s\r\n" % self.protocol
        head += "\r\n"
        self.socket.sendall(head.encode())
        self.data = b""
        self.seq, self.seen, self.closed, self.pongs = 0, [], None, []
        while b"\r\n\r\n" not in self.data:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionError("no answer")
            self.data += more
        head, self.data = self.data.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise ConnectionError(head.decode())

    def made(self, opcode, payload, last=True):
        mask, length = os.urandom(4), len(payload)
        head = bytes([0x80 * last | opcode])
        head += bytes([0x80 | length]) if length < 126 else struct.pack("!BH", 0xFE, length)
        return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))

    def frame(self, opcode, payload):
        self.socket.sendall(self.made(opcode, payload))

    def seqs(self):
        return [message["seq"] for message in self.seen if "seq" in message]

    def say(self, **fields):
        self.frame(1, json.dumps(fields).encode())

    def read(self, timeout):
        """Takes what comes; returns whether anything did."""
        if self.parse():
            return True
        self.socket.settimeout(timeout)
        try:
            more = self.socket.recv(1 << 20)
        except (socket.timeout, BlockingIOError):
            return False
        if not more:
            self.closed = self.closed or "end"
            return True
        self.data += more
        self.parse()
        return True

    def parse(self):
        """Takes whole frames out of what was read; returns whether there were any."""
        found = False
        while len(self.data) >= 2:
            length, at = self.data[1] & 0x7F, 2
            if length == 126:
                length, at = struct.unpack("!H", self.data[2:4])[0], 4
            elif length == 127:
                length, at = struct.unpack("!Q", self.data[2:10])[0], 10
            if len(self.data) < at + length:
                break
            found = True
            opcode, payload = self.data[0] & 0x0F, self.data[at : at + length]
            self.data = self.data[at + length :]
            if opcode == 9:
                self.frame(10, payload)
            elif opcode == 10:
                self.pongs.append(payload)
            elif opcode == 8:
                self.closed = struct.unpack("!H", payload[:2])[0]
                self.frame(8, payload[:2])
            elif opcode in (1, 2):
                self.take(payload)
        return found

    def take(self, payload):
        message = json.loads(payload)
        self.seen.append(message)
        self.seq = max(self.seq, message.get("seq", 0))

    def until(self, kind, patience=20):
        """The first message of that type; `closed` is the end of the connection."""
        deadline = time.time() + patience
        while time.time() < deadline:
            for message in self.seen:
                if message.get("type") == kind:
                    return message
            if kind == "closed" and self.closed:
                return self.closed
            if self.closed:
                break
            self.read(0.2)
        raise AssertionError("no %s but %s, closed with %s" % (kind, self.seen[-5:], self.closed))

    def until_acks(self, count, patience=60):
        """Reads until so many requests are answered."""
        deadline = time.time() + patience
        acks = lambda: sum(message["type"] == "ack" for message in self.seen)
        while acks() < count and time.time() < deadline:
            self.read(0.2)
        if acks() < count:
            raise AssertionError("%d of %d acks, %s" % (acks(), count, self.seen[-2:]))
