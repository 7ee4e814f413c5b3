"""Clients of foreign protocols, each of a few lines, for one box on loopback."""

import http.client
import json
import select
import struct
import threading
import time

from call import need
from websocket import WebSocket

CONFIG = """
[compat]
enabled = ["tutorials", "socketio", "polling", "peerjs", "y-webrtc", "trystero", "mqtt"]
[compat.mqtt]
rooms = "room/{room}/signaling"
"""


def until(holds, what, patience=20):
    deadline = time.time() + patience
    while time.time() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("no %s" % what)


class Client(WebSocket):
    """Of JSON messages."""

    def __init__(self, address, path):
        self.path = path
        super().__init__(address)

    def get(self, what, **fields):
        """The first message that has these fields, taken out."""

        def found():
            for message in self.seen:
                if isinstance(message, dict) and all(message.get(name) == value for name, value in fields.items()):
                    self.seen.remove(message)
                    return message
            self.read(0.05)
            need(not self.closed, "%s: closed with %s" % (what, self.closed))

        return until(found, "%s for %s but %s" % (fields, what, self.seen[-5:]))


class Packets(Client):
    """Of packets that are not JSON."""

    def take(self, payload):
        self.seen.append(payload)

    def packet(self, what, *parts):
        """The first packet that has these parts, taken out."""

        def found():
            for packet in self.seen:
                if all(part in packet for part in parts):
                    self.seen.remove(packet)
                    return packet
            self.read(0.05)
            need(not self.closed, "%s: closed with %s" % (what, self.closed))

        return until(found, "%s for %s but %s" % (parts, what, self.seen[-5:]))


class Mqtt(Packets):
    """Version 3.1.1 with QoS 1."""

    protocol = "mqtt"

    def __init__(self, address, name):
        super().__init__(address, "/mqtt")
        text = lambda value: struct.pack("!H", len(value)) + value
        self.command(0x10, text(b"MQTT") + bytes([4, 2, 0, 60]) + text(name.encode()))
        self.packet(name, b"\x20\x02\x00\x00")

    def command(self, head, body):
        need(len(body) < 128, "a longer packet than this client writes")
        self.frame(2, bytes([head, len(body)]) + body)

    def subscribe(self, topic):
        self.command(0x82, struct.pack("!HH", 7, len(topic)) + topic.encode() + b"\x01")
        self.packet("SUBSCRIBE", b"\x90\x03\x00\x07\x01")

    def publish(self, topic, payload, number):
        head = struct.pack("!H", len(topic)) + topic.encode() + struct.pack("!H", number)
        self.command(0x32, head + payload)

    def acknowledged(self, number):
        self.packet("PUBACK", b"\x40\x02" + struct.pack("!H", number))


class SocketIo(Packets):
    """Engine.IO 4 over a WebSocket alone, or after polling."""

    def __init__(self, address, room, first=False):
        path = "/socket.io/?EIO=4&transport=websocket"
        if first:
            polling = Polling(address, "/socket.io/?EIO=4&transport=polling")
            opened = polling.ask("GET")
            sid = json.loads(opened[1:])["sid"]
            super().__init__(address, path + "&sid=" + sid)
            self.frame(1, b"2probe")
            self.packet("the probe", b"3probe")
            self.frame(1, b"5")
        else:
            super().__init__(address, path)
            self.packet("the handshake", b'0{', b'"sid"')
        self.frame(1, b"40")
        self.packet("CONNECT", b"40{")
        self.emit("join", room)
        self.packet("the room", b"room-users")

    def emit(self, *event):
        self.frame(1, b"42" + json.dumps(event).encode())


class Polling:
    """Requests, each over a connection of its own if the box ends the one before."""

    def __init__(self, address, path):
        self.address, self.path, self.cookie = address, path, None
        self.asked = http.client.HTTPConnection(*address, timeout=60)

    def ask(self, method, body=None):
        headers = {"Cookie": self.cookie} if self.cookie else {}
        if self.asked.sock and select.select([self.asked.sock], [], [], 0)[0]:
            # The box has closed it between two requests.
            self.asked.close()
        self.asked.request(method, self.path, body, headers)
        answer = self.asked.getresponse()
        text = answer.read().decode()
        need(answer.status in (200, 202), "%s %s: %d %s" % (method, self.path, answer.status, text))
        cookie = answer.getheader("Set-Cookie")
        self.cookie = cookie.split(";")[0] if cookie else self.cookie
        return text


class Poller:
    """Asks for what there is, again and again, and lists it."""

    def __init__(self, path, address, split, sends=None):
        self.polling, self.split = Polling(address, path), split
        self.sends = Polling(address, sends or path)
        self.seen, self.failure, self.ends, self.answers = [], None, False, 0
        self.thread = threading.Thread(target=self.run, daemon=True)

    def begin(self):
        self.sends.cookie = self.polling.cookie
        self.thread.start()

    def run(self):
        while not self.ends:
            try:
                self.seen += self.split(self.polling.ask("GET"))
                self.answers += 1
            except Exception as failure:
                self.failure = failure
                return

    def has(self, *parts):
        def found():
            need(not self.failure, "a request fails: %r" % self.failure)
            return [message for message in self.seen if all(part in message for part in parts)]

        return until(found, "%s but %s" % (parts, self.seen[-5:]))


def tutorial_poller(address, room):
    poller = Poller("/api/messages", address, lambda text: [json.dumps(message) for message in json.loads(text)])
    poller.polling.ask("GET")
    poller.begin()
    poller.sends.ask("POST", json.dumps({"type": "join", "roomId": room}))
    poller.has('"room-joined"')
    return poller


def socketio_poller(address, room):
    path = "/socket.io/?EIO=4&transport=polling"
    opened = Polling(address, path).ask("GET")
    path += "&sid=" + json.loads(opened[1:])["sid"]
    poller = Poller(path, address, lambda text: text.split("\x1e"))
    poller.begin()
    poller.sends.ask("POST", "40")
    poller.has("40{")
    poller.sends.ask("POST", "42" + json.dumps(["join", room]))
    poller.has("room-users")

    def answer_pings():
        answered = 0
        while not poller.ends:
            pings = poller.seen.count("2")
            if pings > answered:
                answered += 1
                poller.sends.ask("POST", "3")
            time.sleep(0.05)

    threading.Thread(target=answer_pings, daemon=True).start()
    return poller


class Everybody:
    """Clients of each protocol; those of the tutorials and of MQTT meet a native one in a room."""

    def __init__(self, address):
        self.native = WebSocket(address)
        self.native.say(type="join", id="1", roomId="mixed", identity="nat")
        self.native.until("joined")
        self.tutorial = Client(address, "/")
        self.tutorial.say(type="join", roomId="mixed")
        self.tutorial.get("the tutorial", type="room-joined")
        self.mqtt = Mqtt(address, "em")
        self.mqtt.subscribe("room/mixed/signaling")
        self.poller = tutorial_poller(address, "mixed")
        self.ann, self.bob = [Client(address, "/peerjs?key=peerjs&id=%s&token=t%s" % (name, name)) for name in ("ann", "bob")]
        for client in (self.ann, self.bob):
            client.get("PeerJS", type="OPEN")
        self.topics = [Client(address, path) for path in ("/y-webrtc", "/y-webrtc", "/trystero", "/trystero")]
        for client in self.topics[:2]:
            client.say(type="subscribe", topics=["t"])
        for client in self.topics[2:]:
            client.say(type="subscribe", topic="t")
        self.topics[0].say(type="ping")
        self.topics[0].get("y-webrtc", type="pong")
        self.sockets = [SocketIo(address, "sio"), SocketIo(address, "sio", first=True)]
        self.io_poller = socketio_poller(address, "sio")
        self.round = 0
        self.talk()

    def talk(self):
        """Everybody says something, and everybody gets it once."""
        self.round += 1
        mark = "round %d" % self.round
        # A room of four protocols.
        self.native.say(type="message", id=mark, content=mark)
        self.tutorial.get("the tutorial", type="message", content=mark)
        self.mqtt.packet("MQTT", mark.encode(), b"nat")
        self.poller.has('"message"', '"%s"' % mark)
        self.tutorial.say(type="message", content="tutorial, " + mark)
        self.mqtt.publish("room/mixed/signaling", json.dumps({"a": mark}).encode(), self.round)
        self.mqtt.acknowledged(self.round)
        self.poller.sends.ask("POST", json.dumps({"type": "message", "content": "poller, " + mark}))
        wanted = ["tutorial, " + mark, {"a": mark}, "poller, " + mark]
        said = lambda: [message["content"] for message in self.native.seen if message["type"] == "message"]
        until(lambda: self.native.read(0.05) and False or all(text in said() for text in wanted), "all of %s" % wanted)
        need(len(said()) == 3 * self.round, "said %d times: %s" % (len(said()), said()))
        # Names, topics and events.
        self.ann.say(type="OFFER", dst="bob", payload={"mark": mark})
        self.bob.get("PeerJS", type="OFFER", src="ann", payload={"mark": mark})
        for sender, receiver, name in ((*self.topics[:2], "data"), (*self.topics[2:], "payload")):
            sender.say(type="publish", topic="t", **{name: mark})
            receiver.get("a topic", topic="t", **{name: mark})
        one, other = self.sockets
        one.emit("said", {"mark": mark})
        other.packet("Socket.IO", b'"said"', mark.encode())
        self.io_poller.has('"said"', mark)
        self.io_poller.sends.ask("POST", "42" + json.dumps(["polled", {"mark": mark}]))
        for socket in self.sockets:
            socket.packet("Socket.IO", b'"polled"', mark.encode())

    def nobody_left(self):
        """Nobody was told that anybody left or came, and nobody was cut."""
        kinds = [message["type"] for message in self.native.seen]
        need("peer-left" not in kinds and "peer-state" not in kinds, kinds)
        need(kinds.count("peer-joined") == 3, kinds)
        for client in (self.tutorial, self.ann, self.bob, *self.topics):
            client.read(0.05)
            kinds = [message.get("type") for message in client.seen]
            need(not client.closed and not {"user-left", "peer-left", "EXPIRE"} & set(kinds), kinds)
        for client in (self.mqtt, *self.sockets):
            client.read(0.05)
            need(not client.closed and not any(b"left" in packet for packet in client.seen), client.seen)
        for poller in (self.poller, self.io_poller):
            need(not poller.failure, "a request fails: %r" % poller.failure)
            need(not any("left" in message for message in poller.seen), poller.seen)

    def end(self):
        for poller in (self.poller, self.io_poller):
            poller.ends = True
