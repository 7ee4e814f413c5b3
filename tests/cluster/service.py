"""What operators and clients see of several nodes as one service: the admin API and the list of rooms over all
of them, revocations, events, existing clients and HTTP transports across, and one box that restarts."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

# What the configuration of all nodes says beside the keys of harness.py.
os.environ["CALLBOX_ROOMS__LIST"] = "true"
os.environ["CALLBOX_COMPAT__ENABLED"] = '["tutorials", "socketio", "y-webrtc"]'

from harness import ADMIN, Backend, WebSocket, Node, Redis, carries, closed, join, of, resume, run_in_turn, wait
import turn

ONLY = sys.argv[2:]
BACKEND = Backend()
SECRET = "0123456789abcdef0123456789abcdef"

TESTS = []


def test(function):
    TESTS.append(function)
    return function


def ask(node, method, path, body=None, headers=None, timeout=10):
    """The status and the text of an answer, whatever it is."""
    data = body.encode() if isinstance(body, str) else body
    request = urllib.request.Request("http://127.0.0.1:%d%s" % (node.port, path), data=data, method=method)
    for name, value in (headers or {"Authorization": "Bearer " + ADMIN}).items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def know_each_other(nodes):
    """A node learns of newcomers with its next beat."""
    for node in nodes:
        wait(lambda: node.metric("cluster_nodes") == len(nodes), "%s knows all nodes" % node.name)


def names(text):
    return [room["roomId"] for room in json.loads(text)["rooms"]]


def allocation(client, node):
    """A relay of a client, at the node that has minted its credentials or at another one."""
    ice = next(entry for entry in client.joined["iceServers"] if "credential" in entry)
    server = join(node, "turn-" + node.name).joined["iceServers"]
    url = next(url for entry in server for url in entry["urls"] if url.startswith("turn:127.0.0.1:"))
    relay = turn.Client(("127.0.0.1", int(url.split(":")[2].split("?")[0])), SECRET, "nobody")
    relay.username, relay.password = ice["username"], ice["credential"]
    relay.allocate()
    return relay


def is_refused(relay):
    try:
        relay.refresh()
        return False
    except RuntimeError:
        return True


@test
def ended_while_away(redis, a, b, c):
    """Who is kicked while away, or whose room the operator closes, is told so at whichever node it comes back, though the
    room is gone."""
    for room, end, code in [
        ("gone-a", lambda peer: "/v1/rooms/gone-a/peers/" + peer, 4002),
        ("gone-b", lambda peer: "/v1/rooms/gone-b", 4007),
    ]:
        ann, ben = join(a, room, "ann"), join(b, room, "ben")
        ben.socket.close()
        of(ann, "peer-state", lambda message: message["connection"] == "away")
        assert ask(c, "DELETE", end(ben.peer))[0] == 204
        if code == 4002:
            of(ann, "peer-left", lambda message: message["peerId"] == ben.peer)
            ann.say(type="leave", id="l")
            of(ann, "left")
        else:
            assert closed(ann) == 4007
        for node in (a, b, c):
            comes = node.client()
            comes.say(type="resume", resumeToken=ben.joined["resumeToken"], seq=ben.seq, id="r")
            assert closed(comes) == code, (node.name, comes.closed)


@test
def admin_over_all(redis, a, b, c):
    """The admin API of each node shows and changes rooms wherever they are."""
    ann, bob, cat = join(a, "ad-a", "ann"), join(b, "ad-b", "bob"), join(c, "ad-c", "cat")
    ben = join(a, "ad-b", "ben")
    for node in (a, b, c):
        status, text = ask(node, "GET", "/v1/rooms")
        assert status == 200 and names(text) == sorted(names(text)), text
        assert {"ad-a", "ad-b", "ad-c"} <= set(names(text)), text
        assert "partial" not in json.loads(text), text
        status, text = ask(node, "GET", "/v1/rooms?from=ad-b")
        assert "ad-a" not in names(text) and "ad-b" in names(text), text
        room = json.loads(ask(node, "GET", "/v1/rooms/ad-b")[1])
        assert [member["identity"] for member in room["members"]] == ["bob", "ben"], room
    # Ben, whose connection is at one node, has reported to the node of the room; each shows it.
    ben.say(type="report", to=bob.peer, path="relay", transport="tls", rttMs=40, id="p")
    of(ben, "ack", lambda message: message.get("id") == "p")
    for node in (a, b, c):
        of_bob, of_ben = [member.get("report") for member in json.loads(ask(node, "GET", "/v1/rooms/ad-b")[1])["members"]]
        assert of_bob is None and {**of_ben, "ts": 0} == {"path": "relay", "transport": "tls", "rttMs": 40, "ts": 0}, of_ben
    status, text = ask(c, "PATCH", "/v1/rooms/ad-b", '{"locked": true, "metadata": {"n": 1}}')
    assert status == 200 and json.loads(text)["locked"], text
    of(bob, "room-updated", lambda m: m["room"]["metadata"] == {"n": 1})
    of(ben, "room-updated")
    status, text = ask(a, "POST", "/v1/rooms/ad-c/notify", '{"say": "é"}')
    assert (status, json.loads(text)) == (200, {"members": 1}), text
    assert of(cat, "notify")["content"] == {"say": "é"}
    assert ask(c, "DELETE", "/v1/rooms/ad-b/peers/" + ben.peer)[0] == 204
    assert closed(ben) == 4002
    of(bob, "peer-left", lambda m: m["peerId"] == ben.peer and m["reason"] == "kicked")
    assert ask(a, "DELETE", "/v1/rooms/ad-b/peers/" + ben.peer)[0] == 404
    assert ask(a, "PATCH", "/v1/rooms/ad-b", "{")[0] == 400
    assert ask(b, "DELETE", "/v1/rooms/ad-a")[0] == 204
    assert closed(ann) == 4007
    for node in (a, b, c):
        assert ask(node, "GET", "/v1/rooms/ad-a")[0] == 404
        assert ask(node, "DELETE", "/v1/rooms/nowhere")[0] == 404
    assert ask(c, "PUT", "/v1/denied/203.0.113.7")[0] == 204
    for node in (a, b):
        assert "203.0.113.7" in ask(node, "GET", "/v1/denied")[1]
    assert ask(a, "DELETE", "/v1/denied/203.0.113.7")[0] == 204
    assert "203.0.113.7" not in ask(c, "GET", "/v1/denied")[1]


@test
def relays_over_all(redis, a, b, c):
    """Relays of all nodes are in one list, and end from each of them."""
    bob = join(b, "re-b", "bob")
    relay = allocation(bob, b)
    rows = json.loads(ask(a, "GET", "/v1/relays")[1])["relays"]
    row = next(row for row in rows if row["user"] == bob.peer)
    assert (row["identity"], row["roomId"]) == ("bob", "re-b"), row
    assert ask(c, "DELETE", "/v1/relays/" + bob.peer)[0] == 204
    wait(lambda: is_refused(relay), "the relay ends", 15)
    # The session may have others: its home has revoked no more than was minted.
    bob.say(type="ice", id="i")
    bob.joined["iceServers"] = of(bob, "ice-servers")["iceServers"]
    assert not is_refused(allocation(bob, b))


@test
def rooms_for_clients(redis, a, b, c):
    """`rooms` of a client shows the rooms of all nodes, wherever its session is."""
    ann, bob, cat = join(a, "ro-a", "ann"), join(b, "ro-b", "bob"), join(c, "ro-c", "cat")
    guest = join(c, "ro-a", "guest")
    for client in (ann, bob, cat, guest):
        client.say(type="rooms", id="l")
        listed = of(client, "rooms")
        rooms = {room["roomId"]: room for room in listed["rooms"]}
        assert {"ro-a", "ro-b", "ro-c"} <= set(rooms), listed
        assert rooms["ro-a"]["peers"] == 2 and rooms["ro-b"]["peers"] == 1, listed
        assert "partial" not in listed, listed
    nobody = b.client()
    nobody.say(type="rooms", id="l")
    assert "ro-c" in [room["roomId"] for room in of(nobody, "rooms")["rooms"]]


@test
def silent_nodes_are_named(redis, a, b, c):
    """A node that does not answer is named in `partial`, and what it has waits for it."""
    ann, cat = join(a, "pa-a", "ann"), join(c, "pa-c", "cat")
    wait(lambda: "pa-c" in names(ask(a, "GET", "/v1/rooms")[1]), "the room is listed")
    time.sleep(1.1)
    c.kill(signal.SIGSTOP)
    try:
        text = ask(a, "GET", "/v1/rooms")[1]
        assert json.loads(text)["partial"] == ["c"] and "pa-a" in names(text), text
        ann.say(type="rooms", id="l")
        assert of(ann, "rooms")["partial"] == ["c"]
        status, text = ask(b, "GET", "/v1/rooms/pa-c")
        assert status == 503 and "node c" in text, text
        rows = {row["name"]: row["answers"] for row in json.loads(ask(b, "GET", "/v1/nodes")[1])["nodes"]}
        assert rows == {"a": True, "b": True, "c": False}, rows
    finally:
        c.kill(signal.SIGCONT)
    wait(lambda: "partial" not in json.loads(ask(a, "GET", "/v1/rooms")[1]), "it answers again")


@test
def revoked_everywhere(redis, a, b, c):
    """Who is kicked loses relays at all nodes within a second, also at one that was down meanwhile."""
    ann, bob = join(a, "rv", "ann"), join(b, "rv", "bob")
    # By the same credentials, at the node of the socket and at a third one.
    relays = [allocation(bob, node) for node in (a, b)]
    assert not any(is_refused(relay) for relay in relays)
    c.kill()
    began = time.time()
    ann.say(type="kick", peerId=bob.peer, id="k")
    assert closed(bob) == 4002
    wait(lambda: all(is_refused(relay) for relay in relays), "all relays end", 15)
    took = time.time() - began
    assert took < 10, took
    for node in (a, b):
        refused_to_allocate(bob, node)
    c.start()
    refused_to_allocate(bob, c)
    know_each_other((a, b, c))
    return took


def refused_to_allocate(client, node):
    try:
        allocation(client, node)
    except RuntimeError as error:
        assert "refused" in str(error), error
        return
    raise AssertionError("%s relays by revoked credentials" % node.name)


@test
def revoked_without_redis(redis, a, b, c):
    """What is revoked while Redis is away reaches the other nodes once it is back."""
    ann, bob = join(a, "rw", "ann"), join(a, "rw", "bob")
    relay = allocation(bob, b)
    time.sleep(0.5)
    redis.end(keeps=True)
    ann.say(type="kick", peerId=bob.peer, id="k")
    assert closed(bob) == 4002
    assert not is_refused(relay)
    redis.start()
    began = time.time()
    wait(lambda: is_refused(relay), "the relay ends", 20)
    return time.time() - began


@test
def events_name_their_node(redis, a, b, c):
    """Events bear the name of the node in its cluster."""
    join(b, "ev-b", "bob")
    join(c, "ev-c", "cat")
    seen = lambda room: {event["node"] for event in BACKEND.events if event.get("room") == room}
    wait(lambda: seen("ev-b") == {"b"} and seen("ev-c") == {"c"}, "events with names of nodes")


def callbox(*words):
    done = subprocess.run([sys.argv[1], *words], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@test
def doctor_and_check(redis, a, b, c):
    """The doctor asks Redis and each node; `check` warns of what costs rooms."""
    # After Redis was away, links between nodes take a second.
    answers = lambda: [row["answers"] for row in json.loads(ask(b, "GET", "/v1/nodes")[1])["nodes"]]
    wait(lambda: answers() == [True] * 3, "all nodes answer")
    url = "http://127.0.0.1:%d" % b.port
    code, text = callbox("doctor", "--config", b.config, "--url", url, "--json")
    lines = {line["check"]: line for line in json.loads(text)["checks"]}
    assert lines["Redis"]["status"] == "ok" and "3 nodes" in lines["Redis"]["detail"], text
    assert all(lines["node " + name]["status"] == "ok" for name in "abc"), text
    code, text = callbox("check", "--config", b.config)
    assert code == 0 and "maxmemory-policy" not in text and "neither a disk" not in text, text
    redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    redis.ask("CONFIG", "SET", "save", "")
    c.kill(signal.SIGSTOP)
    try:
        code, text = callbox("check", "--config", b.config)
        assert code == 0 and "noeviction" in text and "neither a disk" in text, text
        code, text = callbox("doctor", "--config", b.config, "--url", url, "--json")
        found = {line["finding"] for line in json.loads(text)["checks"] if "finding" in line}
        assert {"redis-evicts", "redis-forgets", "node-silent"} <= found and code == 1, text
    finally:
        c.kill(signal.SIGCONT)
        redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        redis.ask("CONFIG", "SET", "save", "3600 1000")
    redis.ask("ACL", "SETUSER", "poor", "on", ">p", "~callbox:*", "&callbox:*", "+ping", "+hello")
    poor = os.path.join(b.folder, "poor.toml")
    with open(b.config) as file, open(poor, "w") as other:
        other.write(file.read().replace(redis.socket + '"', redis.socket + '?user=poor&pass=p"'))
    code, text = callbox("check", "--config", poor)
    assert "user callbox on" in text, text


class Polling:
    """A client of Socket.IO over HTTP."""

    def __init__(self, node, nodes=None):
        self.nodes, self.sid, self.seen = [node], None, []
        self.sid = json.loads(self.poll()[0][1:])["sid"]
        self.nodes = nodes or self.nodes
        self.post("40")
        self.event("id")

    @property
    def node(self):
        self.nodes.append(self.nodes.pop(0))
        return self.nodes[0]

    def path(self):
        sid = "&sid=" + self.sid if self.sid else ""
        return "/socket.io/?EIO=4&transport=polling" + sid

    def poll(self):
        status, text = ask(self.node, "GET", self.path(), headers={"Accept": "*/*"}, timeout=40)
        assert status == 200, (status, text)
        return text.split("\x1e")

    def post(self, packet):
        status, text = ask(self.node, "POST", self.path(), packet, {"Content-Type": "text/plain;charset=UTF-8"})
        assert status == 200, (status, text)

    def emit(self, *event):
        self.post("42" + json.dumps(event))

    def event(self, name, patience=20):
        """The arguments of the next event of that name; "id": what the server answers to CONNECT."""
        deadline = time.time() + patience
        while time.time() < deadline:
            for index, packet in enumerate(self.seen):
                if name == "id" and packet.startswith("40"):
                    return self.seen.pop(index)
                if packet.startswith("42") and json.loads(packet[2:])[0] == name:
                    return json.loads(self.seen.pop(index)[2:])[1:]
            for packet in self.poll():
                if packet == "2":
                    self.post("3")
                else:
                    self.seen.append(packet)
        raise AssertionError("no %s but %s" % (name, self.seen[-5:]))


@test
def existing_clients_across(redis, a, b, c):
    """Clients of Socket.IO by long polling meet in one room from two nodes."""
    ann, bob = Polling(a), Polling(b)
    ann.emit("join-room", "sio", "ann")
    ann.event("room-users")
    bob.emit("join-room", "sio", "bob")
    assert len(bob.event("room-users")[0]) == 1
    assert ann.event("user-connected") == ["bob"]
    for sender, receiver, text in [(ann, bob, "there"), (bob, ann, "and back")]:
        sender.emit("offer", {"sdp": text})
        assert receiver.event("offer")[0]["sdp"] == text
    bob.emit("leave")
    ann.event("user-left")


@test
def sessions_over_http_across(redis, a, b, c):
    """The native protocol by long polling in a room of another node; the connection of HTTP ends with the session."""
    ann = join(a, "http", "ann")
    status, text = ask(b, "POST", "/v1/sessions", "")
    assert status == 201, text
    path = "/v1/sessions/" + json.loads(text)["sessionId"]
    seen, seq = [], [0]

    def got(kind):
        deadline = time.time() + 20
        while time.time() < deadline:
            for message in seen:
                if message["type"] == kind:
                    seen.remove(message)
                    return message
            text = ask(b, "GET", path + "/messages?wait=5", timeout=20)[1]
            seen.extend(json.loads(text)["messages"])
        raise AssertionError("no %s but %s" % (kind, seen))

    say = lambda **fields: ask(b, "POST", path + "/messages", json.dumps(fields))
    assert say(type="join", roomId="http", identity="bob", id="j")[0] == 202
    joined = got("joined")
    of(ann, "peer-joined", lambda m: m["identity"] == "bob")
    ann.say(type="message", content="to HTTP", id="m")
    assert got("message")["content"] == "to HTTP"
    say(type="message", content="of HTTP", id="n")
    of(ann, "message", lambda m: m["content"] == "of HTTP")
    ann.say(type="kick", peerId=joined["peerId"], id="k")
    got("kicked")


@test
def requests_at_any_node(redis, a, b, c):
    """Connections that HTTP requests carry need no balancer that is sticky: each request may go to another node."""
    ann = join(a, "any", "ann")
    path = "/v1/sessions/" + json.loads(ask(b, "POST", "/v1/sessions", "")[1])["sessionId"]
    say = lambda node, **fields: ask(node, "POST", path + "/messages", json.dumps(fields))
    assert say(c, type="join", roomId="any", identity="bob", id="j")[0] == 202
    seen, nodes = [], [a, b, c]
    deadline = time.time() + 20
    while not any(message["type"] == "joined" for message in seen) and time.time() < deadline:
        nodes.append(nodes.pop(0))
        status, text = ask(nodes[0], "GET", path + "/messages?wait=5", timeout=20)
        assert status == 200, text
        seen += json.loads(text)["messages"]
    assert any(message["type"] == "joined" for message in seen), seen
    of(ann, "peer-joined")
    # By Server-Sent Events, through a third node.
    url = "http://127.0.0.1:%d%s/events" % (c.port, path)
    with urllib.request.urlopen(url, timeout=20) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        for text in ("one", "two"):
            ann.say(type="message", content=text, id=text)
            while True:
                line = stream.readline().decode()
                assert line, "the stream has ended"
                if line.startswith("data:") and json.loads(line[5:])["type"] == "message":
                    assert json.loads(line[5:])["content"] == text, line
                    break
        assert ask(a, "DELETE", path)[0] == 204
        while not line.startswith("event: close"):
            line = stream.readline().decode()
            assert line, "the stream has ended without close"
    for node in (a, b, c):
        assert ask(node, "GET", path + "/messages")[0] == 404
    # Socket.IO by long polling, each request at another node.
    first, second = Polling(a, [b, c, a]), Polling(b, [c, a, b])
    first.emit("join-room", "any-sio", "first")
    first.event("room-users")
    second.emit("join-room", "any-sio", "second")
    assert first.event("user-connected") == ["second"]
    second.emit("offer", {"sdp": "elsewhere"})
    assert first.event("offer")[0]["sdp"] == "elsewhere"


class Topics(WebSocket):
    """A client of y-webrtc."""

    path = "/y-webrtc"


@test
def topics_across(redis, a, b, c):
    """What is published to a topic at one node reaches its subscribers at all."""
    clients = [Topics(("127.0.0.1", node.port)) for node in (a, b, c)]
    for client in clients:
        client.say(type="subscribe", topics=["doc"])
        client.say(type="ping")
        of(client, "pong")
    for sender in clients:
        sender.say(type="publish", topic="doc", data={"from": sender.socket.getsockname()[1]})
    for client in clients:
        seen = {of(client, "publish")["data"]["from"] for _ in clients}
        assert seen == {other.socket.getsockname()[1] for other in clients}, seen
    clients[0].say(type="publish", topic="other", data=1)
    clients[0].say(type="publish", topic="doc", data={"last": True})
    for client in clients:
        assert of(client, "publish")["data"] == {"last": True}


@test
def one_box_restarts(redis, a, b, c):
    """Rooms of a single box keep password, lock, metadata and roles over a restart, as Redis has them."""
    single = Node("single", redis, prefix="single")
    try:
        for how in (signal.SIGKILL, signal.SIGTERM):
            room = "kept-%d" % how
            create = {"password": "open", "metadata": {"n": 7}}
            ann = join(single, room, "ann", create=create)
            bob = join(single, room, "bob", password="open")
            ann.say(type="room", maxPeers=3, relayOnly=False, id="r")
            of(ann, "room-updated")
            time.sleep(0.5)
            single.kill(how)
            single.start()
            eve = single.client()
            eve.say(type="join", roomId=room, identity="eve", password="wrong", id="w")
            assert of(eve, "error")["code"] == "bad-password"
            back, again = resume(single, ann), resume(single, bob)
            shown = back.resumed["room"]
            assert (shown["metadata"], shown["maxPeers"], shown["hasPassword"]) == ({"n": 7}, 3, True), shown
            assert (back.resumed["role"], again.resumed["role"]) == ("host", "member")
            carries(back, again, "after")
    finally:
        single.remove()


if __name__ == "__main__":
    def start(redis):
        # One that is stopped for a while is not dead yet.
        nodes = [Node(name, redis, BACKEND, lease="20s") for name in "abc"]
        know_each_other(nodes)
        return nodes

    run_in_turn(TESTS, ONLY, start)
