"""The smallest clients that do: of the signaling protocol, and of TURN over UDP, TCP and TLS."""

import asyncio, base64, hashlib, hmac, ipaddress, json, os, struct

COOKIE = 0x2112A442


def bracketed(host):
    return f"[{host}]" if ":" in host else host


def frame(data, opcode=1):
    mask = os.urandom(4)
    length = len(data)
    head = bytes([0x80 | opcode, 0x80 | length]) if length < 126 else bytes([0x80 | opcode, 0xFE]) + struct.pack("!H", length)
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data))


class Socket:
    """A WebSocket client."""

    async def open(self, host, tls=None):
        self.seq = 0
        self.r, self.w = await asyncio.open_connection(host, 8443 if tls else 8080, ssl=tls)
        key = base64.b64encode(os.urandom(16)).decode()
        self.w.write(
            f"GET /ws HTTP/1.1\r\nHost: {bracketed(host)}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = await self.r.readuntil(b"\r\n\r\n")
        if b" 101 " not in head:
            raise ConnectionError(head.split(b"\r\n")[0].decode())
        return self

    def send(self, **message):
        self.w.write(frame(json.dumps(message).encode()))

    async def until(self, kind):
        while True:
            first, length = await self.r.readexactly(2)
            if length == 126:
                length = struct.unpack("!H", await self.r.readexactly(2))[0]
            elif length == 127:
                length = struct.unpack("!Q", await self.r.readexactly(8))[0]
            data = await self.r.readexactly(length)
            if first & 15 == 9:
                self.w.write(frame(data, 10))
            elif first & 15 == 8:
                raise ConnectionError(f"closed {data[:2].hex()} {data[2:]}")
            elif first & 15 == 1:
                message = json.loads(data)
                self.seq = message.get("seq", self.seq)
                if message["type"] == kind:
                    return message
                if message["type"] == "error":
                    raise ConnectionError(f"{message['code']} instead of {kind}")

    def close(self):
        self.w.transport.abort()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self):
        self.queue = asyncio.Queue(1000)

    def datagram_received(self, data, _):
        if not self.queue.full():
            self.queue.put_nowait(data)


class Echo(asyncio.DatagramProtocol):
    """A peer without TURN, which sends back what comes."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, source):
        self.transport.sendto(data, source)


class Turn:
    """A TURN client over udp, tcp or tls."""

    def __init__(self, user, password, kind):
        self.user, self.password, self.kind, self.nonce = user, password, kind, None

    async def open(self, host, tls):
        if self.kind == "udp":
            loop = asyncio.get_running_loop()
            self.w, self.r = await loop.create_datagram_endpoint(Datagrams, remote_addr=(host, 3478))
        else:
            port, context = (8443, tls) if self.kind == "tls" else (3478, None)
            self.r, self.w = await asyncio.open_connection(host, port, ssl=context)
        return self

    def write(self, data):
        (self.w.sendto if self.kind == "udp" else self.w.write)(data)

    def say(self, data, channel=0x4001):
        """Sends over a channel; streams carry multiples of four bytes."""
        self.write(struct.pack("!HH", channel, len(data)) + data + bytes(-len(data) % 4))

    async def read(self):
        if self.kind == "udp":
            return await self.r.queue.get()
        head = await self.r.readexactly(4)
        kind, length = struct.unpack("!HH", head)
        rest = length + 16 if kind < 0x4000 else length + -length % 4
        return head + await self.r.readexactly(rest)

    async def receive(self, data):
        """Reads until that has come over some channel."""
        while (await self.read())[4 : 4 + len(data)] != data:
            pass

    async def request(self, method, attributes):
        for _ in range(4):
            tid = os.urandom(12)
            listed = list(attributes(tid))
            if self.nonce:
                listed += [(6, self.user.encode()), (0x14, self.realm), (0x15, self.nonce)]
            body = b"".join(struct.pack("!HH", t, len(v)) + v + bytes(-len(v) % 4) for t, v in listed)
            if self.nonce:
                key = hashlib.md5(b":".join([self.user.encode(), self.realm, self.password.encode()])).digest()
                head = struct.pack("!HHI", method, len(body) + 24, COOKIE) + tid
                body += struct.pack("!HH", 8, 20) + hmac.new(key, head + body, hashlib.sha1).digest()
            self.write(struct.pack("!HHI", method, len(body), COOKIE) + tid + body)
            while True:
                data = await self.read()
                if data[0] < 0x40 and data[8:20] == tid:
                    break
            answer, at = {}, 20
            while at + 4 <= len(data):
                t, n = struct.unpack("!HH", data[at : at + 4])
                answer.setdefault(t, data[at + 4 : at + 4 + n])
                at += 4 + n + -n % 4
            code = answer[9][2] * 100 + answer[9][3] if 9 in answer else 0
            if code not in (401, 438):
                if code:
                    raise ConnectionError(f"{method} answered {code}")
                return tid, answer
            self.realm, self.nonce = answer[0x14], answer[0x15]
        raise ConnectionError("challenged again and again")

    async def allocate(self, ipv6=False):
        family = [(0x17, b"\2\0\0\0")] if ipv6 else []
        tid, answer = await self.request(3, lambda _: [(0x19, b"\x11\0\0\0"), *family])
        self.relayed = unmasked(answer[0x16], tid)

    async def channel(self, peer, number=0x4001):
        await self.request(9, lambda tid: [(0xC, struct.pack("!HH", number, 0)), (0x12, masked(peer, tid))])

    async def refresh(self):
        await self.request(4, lambda _: [(0xD, struct.pack("!I", 600))])

    def close(self):
        (self.w.close if self.kind == "udp" else self.w.transport.abort)()


def crossed(ip, tid):
    return bytes(a ^ b for a, b in zip(ip, struct.pack("!I", COOKIE) + tid))


def masked(address, tid):
    """XOR-PEER-ADDRESS of (host, port)."""
    ip = ipaddress.ip_address(address[0]).packed
    return struct.pack("!BBH", 0, 1 if len(ip) == 4 else 2, address[1] ^ (COOKIE >> 16)) + crossed(ip, tid)


def unmasked(value, tid):
    port = struct.unpack("!H", value[2:4])[0] ^ (COOKIE >> 16)
    return str(ipaddress.ip_address(crossed(value[4:], tid))), port
