"""Joins a room with a token over a WebSocket, prints the type of the reply, and leaves.

client.py PORT TOKEN ROOM
"""
import base64, json, os, socket, sys

port, token, room = int(sys.argv[1]), sys.argv[2], sys.argv[3]
s = socket.create_connection(("127.0.0.1", port), timeout=20)
key = base64.b64encode(os.urandom(16)).decode()
s.sendall(
    f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
)
f = s.makefile("rb")
while f.readline() not in (b"\r\n", b""):
    pass


def send(message):
    data, mask = json.dumps(message).encode(), os.urandom(4)
    head = bytes([0x81, 0x80 | len(data)]) if len(data) < 126 else b"\x81\xfe" + len(data).to_bytes(2, "big")
    s.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))


def receive():
    _, length = f.read(2)
    if length == 126:
        length = int.from_bytes(f.read(2), "big")
    return json.loads(f.read(length))


receive()
send({"type": "join", "roomId": room, "token": token, "id": "1"})
reply = receive()
while reply.get("id") != "1":
    reply = receive()
print(reply["type"], reply.get("code", ""), reply.get("message", ""), flush=True)
if reply["type"] == "joined":
    send({"type": "leave", "id": "2"})
    receive()
