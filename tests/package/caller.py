"""A caller that outlives reloads, upgrades and restarts: a WebSocket and two live allocations.

usage: caller.py PORT TOKEN   (no module beyond the standard library: it runs in a small container)

Sends a WebSocket ping message and a relayed payload ten times a second. Closed with 1012, it resumes
the session. On SIGTERM, and when the WebSocket is closed otherwise, it prints one JSON object of
what it saw.
"""

import base64, hashlib, hmac, json, os, select, signal, socket, struct, sys, time

COOKIE = 0x2112A442


class WebSocket:
    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port))
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode())
        self.data = b""
        while b"\r\n\r\n" not in self.data:
            self.data += self.sock.recv(4096)
        head, self.data = self.data.split(b"\r\n\r\n", 1)
        assert b" 101 " in head.split(b"\r\n")[0], head

    def send(self, opcode, payload):
        mask = os.urandom(4)
        length = len(payload)
        head = bytes([0x80 | opcode])
        head += bytes([0x80 | length]) if length < 126 else struct.pack("!BH", 0xFE, length)
        self.sock.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))

    def message(self, **fields):
        self.send(1, json.dumps(fields).encode())

    def frames(self):
        """What has come in: (opcode, payload) pairs; opcode None at the end of the stream."""
        chunk = self.sock.recv(65536)
        if not chunk:
            return [(None, b"")]
        self.data += chunk
        out = []
        while len(self.data) >= 2:
            length, at = self.data[1] & 0x7F, 2
            if length == 126:
                length, at = struct.unpack("!H", self.data[2:4])[0], 4
            if len(self.data) < at + length:
                break
            out.append((self.data[0] & 0x0F, self.data[at:at + length]))
            self.data = self.data[at + length:]
        return out


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + b"\0" * (-len(value) % 4)


def address(value):
    port, ip = struct.unpack("!xxHI", value[:8])
    return port ^ (COOKIE >> 16), ip ^ COOKIE


def xored(port, ip):
    return struct.pack("!BBHI", 0, 1, port ^ (COOKIE >> 16), ip ^ COOKIE)


class Allocation:
    def __init__(self, port, username, password):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect(("127.0.0.1", port))
        self.username, self.key, self.proof = username, None, b""
        udp = attribute(0x0019, b"\x11\0\0\0")
        refusal = self.request(0x0003, udp)
        realm, nonce = refusal[0x0014], refusal[0x0015]
        self.key = hashlib.md5(username.encode() + b":" + realm + b":" + password.encode()).digest()
        self.proof = (attribute(0x0006, username.encode()) + attribute(0x0014, realm)
                      + attribute(0x0015, nonce))
        self.relayed = address(self.request(0x0003, udp)[0x0016])

    def request(self, method, attributes):
        body = attributes + self.proof
        transaction = os.urandom(12)
        if self.key:
            head = struct.pack("!HHI", method, len(body) + 24, COOKIE) + transaction
            body += attribute(0x0008, hmac.new(self.key, head + body, hashlib.sha1).digest())
        message = struct.pack("!HHI", method, len(body), COOKIE) + transaction + body
        for _ in range(5):
            self.sock.send(message)
            if select.select([self.sock], [], [], 1)[0]:
                return self.parse(self.sock.recv(2048))
        raise SystemExit(f"no answer to {method:#x}")

    def permit(self, peer):
        self.request(0x0008, attribute(0x0012, xored(*peer)))

    def send(self, payload, peer):
        body = attribute(0x0012, xored(*peer)) + attribute(0x0013, payload)
        self.sock.send(struct.pack("!HHI", 0x0016, len(body), COOKIE) + os.urandom(12) + body)

    @staticmethod
    def parse(message):
        attributes, at = {}, 20
        while at + 4 <= len(message):
            kind, length = struct.unpack("!HH", message[at:at + 4])
            attributes[kind] = message[at + 4:at + 4 + length]
            at += 4 + length + -length % 4
        return attributes


def main():
    port, token = int(sys.argv[1]), sys.argv[2]
    ws = WebSocket(port)
    ws.message(type="join", id="join", roomId="package", identity="caller", token=token)
    seen = {"pongs": 0, "sent": 0, "received": 0, "longestGapMs": 0, "draining": False,
            "closed": None, "resumed": 0, "gaps": 0, "relayed": 0}
    session, seq = None, 0
    near = far = None
    last, due, lasted = None, 0, False

    def finish(*_):
        print(json.dumps(seen), flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, finish)
    while True:
        wanted = [ws.sock] + ([far.sock] if far else [])
        for sock in select.select(wanted, [], [], 0.1)[0]:
            if far and sock is far.sock:
                if b"payload" in Allocation.parse(far.sock.recv(2048)).get(0x0013, b""):
                    now = time.monotonic()
                    if last:
                        seen["longestGapMs"] = max(seen["longestGapMs"], int((now - last) * 1000))
                    last = now
                    seen["received"] += 1
                continue
            for opcode, payload in ws.frames():
                if opcode in (None, 8):
                    code = struct.unpack("!H", payload[:2])[0] if payload[:2] else 0
                    if code == 1012:
                        ws.sock.close()
                        ws = WebSocket(port)
                        ws.message(type="resume", id="resume", resumeToken=session, seq=seq)
                        break
                    seen["closed"] = code
                    finish()
                if opcode == 9:
                    ws.send(10, payload)
                if opcode != 1:
                    continue
                message = json.loads(payload)
                seq = max(seq, message.get("seq", 0))
                session = message.get("resumeToken", session)
                if message["type"] == "resumed":
                    seen["resumed"] += 1
                    seen["gaps"] += message["gap"]
                elif message["type"] == "joined":
                    relay = next(s for s in message["iceServers"] if "username" in s)
                    url = next(u for u in relay["urls"] if "transport=udp" in u and "[" not in u)
                    turn = int(url.split("?")[0].split(":")[2])
                    near, far = (Allocation(turn, relay["username"], relay["credential"])
                                 for _ in range(2))
                    near.permit(far.relayed)
                    far.permit(near.relayed)
                    seen["relayed"] = far.relayed[0]
                    print("calling", flush=True)
                elif message["type"] == "pong":
                    seen["pongs"] += 1
                elif message["type"] == "draining":
                    seen["draining"] = True
                    print("draining", flush=True)
                elif message["type"] == "error":
                    raise SystemExit(str(message))
        if not lasted and min(seen["pongs"], seen["received"]) > 10:
            lasted = True
            print("lasted", flush=True)
        if far and time.monotonic() >= due:
            due = time.monotonic() + 0.1
            ws.message(type="ping")
            try:
                near.send(b"payload", far.relayed)
                seen["sent"] += 1
            except OSError:
                pass


if __name__ == "__main__":
    main()
