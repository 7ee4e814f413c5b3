"""A relayed call at a steady pace, whose packets have numbers: what is lost or repeated is seen."""

import select
import socket
import struct
import threading
import time

PACE = 1_000


def need(condition, text):
    if not condition:
        raise AssertionError(text)


class Traffic:
    """Threads that send and read until they are ended."""

    def start(self, work):
        self.going, self.sent = True, [0, 0]
        self.threads = [threading.Thread(target=each, daemon=True) for each in work]
        for thread in self.threads:
            thread.start()

    def steadily(self, way, pace, send):
        began = time.monotonic()
        while self.going:
            due = int((time.monotonic() - began) * pace)
            while self.sent[way] < due:
                send(self.sent[way])
                self.sent[way] += 1
            time.sleep(0.001)


class Call(Traffic):
    """Packets with numbers at a steady pace, both ways through one relayed address."""

    def __init__(self, client):
        self.client = client
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind(("127.0.0.1", 0))
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.relayed = self.client.allocate()
        self.client.bind(0x4000, self.peer.getsockname())
        self.at_peer, self.at_client, self.sources = [], [], set()
        self.start([self.from_client, self.from_peer, self.read_client, self.read_peer])

    def from_client(self):
        self.steadily(0, PACE, lambda number: self.client.send_channel(0x4000, self.payload(number)))

    def from_peer(self):
        self.steadily(1, PACE, lambda number: self.peer.sendto(self.payload(number), self.relayed))

    @staticmethod
    def payload(number):
        return struct.pack("!Q", number) + bytes(160)

    def read_client(self):
        while not self.done():
            message = self.client.receive(0.2)
            if message and message[0] & 0xC0:
                self.at_client.append(struct.unpack("!Q", message[4:12])[0])

    def read_peer(self):
        self.peer.settimeout(0.2)
        while not self.done():
            try:
                payload, source = self.peer.recvfrom(2048)
            except socket.timeout:
                continue
            self.at_peer.append(struct.unpack("!Q", payload[:8])[0])
            self.sources.add(source)

    def done(self):
        return not self.going and time.time() > self.ends

    def end(self, name):
        self.ends = time.time() + 2
        self.going = False
        for thread in self.threads:
            thread.join()
        for way, seen, sent in [("to the peer", self.at_peer, self.sent[0]), ("to the client", self.at_client, self.sent[1])]:
            lost, repeated = sent - len(set(seen)), len(seen) - len(set(seen))
            need(lost == 0, "%s: %d of %d lost %s" % (name, lost, sent, way))
            need(repeated == 0, "%s: %d repeated %s" % (name, repeated, way))
            need(seen == sorted(seen), "%s: out of order %s" % (name, way))
        need(self.sources == {self.relayed}, "%s: the relayed address changed" % name)
        # The first nonce, the permission and the channel are as good as before.
        self.client.refresh()
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stranger.bind(("127.0.0.2", 0))
        stranger.sendto(b"not permitted", self.relayed)
        need(self.client.receive(0.3) is None, "%s: a peer without permission" % name)
        return self.sent


class Flood(Traffic):
    """Numbered packets at a pace through many relayed addresses: half to their peer, half to clients."""

    RCVBUFFORCE = 33

    def __init__(self, clients, pace):
        self.clients, self.pace = clients, pace / 2
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind(("127.0.0.1", 0))
        for each in [self.peer] + [client.socket for client in clients]:
            try:
                each.setsockopt(socket.SOL_SOCKET, self.RCVBUFFORCE, 32 << 20)
            except PermissionError:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        for client in clients:
            client.bind(0x4000, self.peer.getsockname())
            client.socket.setblocking(False)
        self.peer.setblocking(False)
        self.seen, self.repeated = [set(), set()], 0
        self.longest, self.last = 0, None
        self.start([self.to_peer, self.to_clients, self.read])

    def packet(self, number):
        return self.clients[number % len(self.clients)], struct.pack("!Q", number) + bytes(152)

    def to_peer(self):
        head = struct.pack("!HH", 0x4000, 160)

        def send(number):
            client, payload = self.packet(number)
            client.socket.send(head + payload)

        self.steadily(0, self.pace, send)

    def to_clients(self):
        def send(number):
            client, payload = self.packet(number)
            self.peer.sendto(payload, client.relayed)

        self.steadily(1, self.pace, send)

    def read(self):
        sockets = {client.socket.fileno(): client.socket for client in self.clients}
        peer = self.peer.fileno()
        poll = select.epoll()
        for number in [*sockets, peer]:
            poll.register(number, select.EPOLLIN)
        while self.going or time.time() < self.ends:
            for number, _ in poll.poll(0.2):
                try:
                    for _ in range(64):
                        if number == peer:
                            self.take(0, self.peer.recv(2048))
                        else:
                            message = sockets[number].recv(2048)
                            if message[0] & 0xC0:
                                self.take(1, message[4:])
                except BlockingIOError:
                    pass

    def take(self, way, payload):
        number = struct.unpack("!Q", payload[:8])[0]
        self.repeated += number in self.seen[way]
        self.seen[way].add(number)
        now = time.monotonic()
        if self.last:
            self.longest = max(self.longest, now - self.last)
        self.last = now

    def end(self):
        """Packets that were sent, lost and repeated, and how long nothing came, in milliseconds."""
        self.ends = time.time() + 3
        self.going = False
        for thread in self.threads:
            thread.join()
        lost = sum(self.sent) - sum(len(seen) for seen in self.seen)
        return sum(self.sent), lost, self.repeated, int(self.longest * 1000)
