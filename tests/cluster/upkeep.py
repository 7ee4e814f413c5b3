"""What operators do to a cluster, and what other programs do to its Redis: upkeep.py PROGRAM upkeep [TEST…]."""

import json
import signal
import time
import urllib.request

from harness import ADMIN, carries, closed, join, of, resume, wait
from place import LEASE, anew, back, run_each, stays, test

OLD, NEW = "s" * 32, "t" * 32


def register(node, identity, patience=20):
    """Registers as a client does: again where the node says so (1013)."""
    deadline = time.time() + patience
    while True:
        try:
            client = node.client()
            client.say(type="register", identity=identity, id="r")
            client.joined = of(client, "registered")
            client.peer = client.joined["peerId"]
            return client
        except AssertionError as error:
            if "closed with 1013" not in str(error) or time.time() > deadline:
                raise
            time.sleep(0.2)


def restart(node, how=signal.SIGTERM):
    node.kill(how)
    node.start()


@test("upkeep")
def secrets_rotate(place):
    """The three steps of docs/cluster.md: the room goes on, and each node starts, with the new secret alone."""
    redis = place.redis()
    a, b, c = nodes = place.three(redis)
    ann, bob = join(a, "x", "ann", create={"password": "open"}), join(b, "x", "bob", password="open")
    began = time.time()
    # A node that dies leaves records that were sealed before.
    for secrets in ([OLD, NEW], [NEW, OLD], [NEW]):
        for node in nodes:
            node.configure(secret=secrets)
            restart(node, signal.SIGKILL if node is c else signal.SIGTERM)
            ann, bob = together(ann, a, bob, b, "%d secrets at %s" % (len(secrets), node.name))
    stranger = c.client()
    stranger.say(type="join", roomId="x", identity="eve", id="e")
    assert of(stranger, "error")["code"] == "bad-password"
    return time.time() - began


@test("upkeep")
def networks_are_refused_everywhere(place):
    """What is refused at one node is refused at one that was silent, at one that starts later, and after Redis has
    forgotten; what is taken out meanwhile is taken out there too."""
    redis = place.redis()
    a, b, c = place.three(redis)
    here, there, gone = "203.0.113.7/32", "203.0.113.8/32", "203.0.113.9/32"

    def change(node, method, network):
        request = urllib.request.Request("http://127.0.0.1:%d/v1/denied/%s" % (node.port, network), method=method)
        request.add_header("Authorization", "Bearer " + ADMIN)
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read().decode()
            return answer.status, json.loads(text) if text else None

    def has(node, *networks):
        rows = {row["network"] for row in node.get("/v1/denied")["denied"]}
        return rows == set(networks)

    assert change(a, "PUT", here) == (204, None) and change(a, "PUT", gone) == (204, None)
    began = time.time()
    c.kill(signal.SIGSTOP)
    assert change(b, "PUT", there) == (200, {"partial": ["c"]})
    assert change(b, "DELETE", gone) == (200, {"partial": ["c"]})
    c.kill(signal.SIGCONT)
    wait(lambda: has(c, here, there), "the silent node learns of it")
    restart(b, signal.SIGKILL)
    wait(lambda: has(b, here, there), "one that starts later knows them")
    values = redis.ask("--no-raw", "HGETALL", "callbox:d")
    assert values and "203.0.113" not in values, values
    # A rotation, and a Redis that forgets.
    for node in (a, b, c):
        node.configure(secret=[NEW, OLD])
        restart(node)
    redis.end()
    redis.start()
    wait(lambda: redis.ask("HLEN", "callbox:d") not in ("", "0"), "they are written again")
    restart(c, signal.SIGKILL)
    wait(lambda: has(c, here, there), "one that starts after that knows them")
    wait(lambda: all(node.metric("cluster_nodes") == 3 for node in (a, b, c)), "its earlier run is buried")
    assert change(c, "DELETE", here) == (204, None) and change(c, "DELETE", there) == (204, None)
    restart(a, signal.SIGKILL)
    wait(lambda: has(a), "taken out")
    return time.time() - began


def look(client, does):
    """Does something with a connection, which may be at its end."""
    try:
        does()
    except OSError:
        client.closed = client.closed or "end"


def together(one, at, other, there, text, patience=40):
    """Both, once what one says comes to the other: each comes back where its connection has ended."""
    deadline, times = time.time() + patience, 0
    while time.time() < deadline:
        one, other = (resume(node, client) if client.closed else client for client, node in ((one, at), (other, there)))
        times += 1
        look(one, lambda: one.say(type="message", content=text, id="%s %d" % (text, times)))
        until = time.time() + 2
        while time.time() < until and not one.closed and not other.closed:
            look(one, lambda: one.read(0.05))
            look(other, lambda: other.read(0.05))
            if any(m.get("content") == text for m in other.seen):
                return one, other
    raise AssertionError("they never meet again: %s" % text)


@test("upkeep")
def other_turn_secrets(place):
    """A node whose TURN secrets have nothing in common with the others' ends with 78, and says why."""
    redis = place.redis()
    place.node("a", redis)
    try:
        place.node("x", redis, turn="fedcba9876543210fedcba9876543210")
    except AssertionError as error:
        assert "turn.secrets of node" in str(error), error
        return
    raise AssertionError("it started")


@test("upkeep")
def keys_of_others(place):
    """Another program writes to keys of the prefix: what it has written over is gone, and nothing else."""
    redis = place.redis()
    a, b, c = place.three(redis)
    ann, bob = join(a, "x", "ann"), join(b, "x", "bob")
    carries(ann, bob, "before")
    time.sleep(0.5)
    before = set(redis.ask("KEYS", "callbox:r:*").split())
    eve = join(a, "y", "eve")
    time.sleep(0.5)
    (other,) = set(redis.ask("KEYS", "callbox:r:*").split()) - before
    redis.ask("HSET", "callbox:{n}:nodes", "some-program", "1")
    redis.ask("SET", other, "something")
    time.sleep(LEASE + 2)
    for node in (a, b, c):
        assert node.metric("cluster_isolated") == 0 and node.metric("cluster_nodes") == 3
    carries(ann, bob, "beside it")
    eve.say(type="state", state={"n": 1}, id="s")
    assert closed(eve) == 1012
    a.process.send_signal(signal.SIGTERM)
    ann, bob = back(ann, c), back(bob, b)
    carries(ann, bob, "moved all the same")
    a.process.wait(timeout=30)


@test("upkeep")
def registrations_move(place):
    """The node of the registrations is drained: who is registered resumes elsewhere, and the call goes on."""
    redis = place.redis()
    a, b, c = place.three(redis)
    dan, eve = register(a, "dan"), register(b, "eve")
    dan.say(type="call", to="eve", id="c")
    call = of(dan, "calling")["callId"]
    of(eve, "call")
    eve.say(type="accept", callId=call, id="a")
    of(dan, "accept")
    began = time.time()
    a.process.send_signal(signal.SIGTERM)
    dan, eve = back(dan, c), back(eve, b)
    took = time.time() - began
    dan.say(type="message", to=eve.peer, content="still here", id="m")
    assert of(eve, "message")["content"] == "still here"
    a.process.wait(timeout=30)
    # The others, too: the call lives through the restart of each of them.
    for node, text in [(b, "after two"), (c, "after three")]:
        other = a if node is b else b
        other.start()
        wait(lambda: node.metric("cluster_nodes") == 3, "it is back")
        node.process.send_signal(signal.SIGTERM)
        dan, eve = back(dan, a), back(eve, a)
        eve.say(type="message", to=dan.peer, content=text, id=text)
        assert of(dan, "message")["content"] == text
        node.process.wait(timeout=30)
    eve.say(type="hangup", callId=call, id="h")
    of(dan, "hangup")
    return took


@test("upkeep")
def registrations_are_yielded(place):
    """The node of the registrations is frozen for longer than the lease: waking, it gives up who was registered."""
    redis = place.redis()
    a, b, c = place.three(redis)
    dan = register(a, "dan")
    time.sleep(0.5)
    a.kill(signal.SIGSTOP)
    began = time.time()
    wait(lambda: b.metric("cluster_nodes") == 2, "the frozen node is buried")
    eve = register(b, "eve")
    took = time.time() - began
    a.kill(signal.SIGCONT)
    assert closed(dan) == 1012
    dan = register(a, "dan")
    eve.say(type="call", to="dan", id="c")
    call = of(eve, "calling")["callId"]
    assert of(dan, "call")["callId"] == call
    stays(eve)
    return took


@test("upkeep")
def mark_is_unreadable(place):
    """The store's mark is overwritten for a moment: the nodes are ready again once it is to be read."""
    redis = place.redis()
    a, b, c = place.three(redis)
    mark = "callbox:{n}:mark"
    redis.ask("SET", mark, "garbage")
    wait(lambda: not a.is_ready(), "a node that cannot read the mark is not ready")
    redis.ask("DEL", mark)
    for node in (a, b, c):
        wait(node.is_ready, "%s is ready again" % node.name)
    assert "cluster.secret does not open" in a.said()
    ann, bob = anew(a, "z", "ann"), anew(b, "z", "bob")
    carries(ann, bob, "after")


@test("upkeep")
def record_is_changed(place):
    """A room's settings that do not open let nobody in: without them, the room would open to everybody."""
    redis = place.redis()
    a, b, c = place.three(redis)
    join(a, "x", "ann", create={"password": "open"})
    (key,) = redis.ask("KEYS", "callbox:r:*").split()
    a.kill()
    redis.ask("HSET", key, "s", "changed")
    wait(lambda: b.metric("cluster_nodes") == 2, "the home is buried")
    eve = b.client()
    eve.say(type="join", roomId="x", identity="eve", id="e")
    assert closed(eve) == 1013 and not [m for m in eve.seen if m["type"] == "joined"]
    assert "does not open with cluster.secret" in b.said()


@test("upkeep")
def orphans_are_seen(place):
    """A room whose home has died and that nobody has wanted since is an operator's to see and to close."""
    redis = place.redis()
    a, b, c = place.three(redis)
    ann = join(a, "x", "ann")
    time.sleep(0.5)
    a.kill()
    wait(lambda: b.metric("cluster_nodes") == 2 and c.metric("cluster_nodes") == 2, "the home is buried")
    assert b.get("/v1/rooms/x")["roomId"] == "x"
    c.get("/v1/rooms/x", method="DELETE")
    for node in (b, c):
        comes = node.client()
        comes.say(type="resume", resumeToken=ann.joined["resumeToken"], seq=ann.seq, id="r")
        assert closed(comes) == 4007, (node.name, comes.closed)


if __name__ == "__main__":
    run_each()
