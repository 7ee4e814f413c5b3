"""Real nodes over a real Redis on loopback: rooms and calls across, nodes killed, frozen and drained,
Redis restarted with and without its data. Prints what each took; ends with 1 at the first that fails."""

import json
import os
import signal
import sys
import time

from pairs import Pairs
from harness import Backend, Node, Redis, carries, closed, join, of, resume, run_in_turn, wait

ONLY = sys.argv[2:]
BACKEND = Backend()

TESTS = []


def test(function):
    TESTS.append(function)
    return function


@test
def across(redis, a, b, c):
    """Members of one room on three nodes."""
    ann, bob, cat = join(a, "r1", "ann"), join(b, "r1", "bob"), join(c, "r1", "cat")
    of(ann, "peer-joined", lambda m: m["identity"] == "bob")
    of(ann, "peer-joined", lambda m: m["identity"] == "cat")
    of(bob, "peer-joined", lambda m: m["identity"] == "cat")
    assert len(cat.joined["peers"]) == 2, cat.joined
    for i, (sender, receiver) in enumerate([(ann, bob), (bob, cat), (cat, ann), (bob, ann)]):
        carries(sender, receiver, "text %d" % i)
    bob.say(type="message", to=ann.peer, content="only", id="o")
    of(ann, "message", lambda m: m["content"] == "only")
    # Many in a row keep their order.
    for i in range(300):
        if i % 50 == 49:
            of(bob, "ack", lambda m: m.get("id") == "n%d" % (i - 1))
        bob.say(type="message", content=i, id="n%d" % i)
    got = [of(cat, "message", lambda m: isinstance(m["content"], int))["content"] for _ in range(300)]
    assert got == list(range(300)), got
    bob.say(type="state", state={"hand": True}, id="s")
    of(ann, "peer-state", lambda m: m["peerId"] == bob.peer)
    bob.say(type="list", id="l")
    assert len(of(bob, "peers")["peers"]) == 2
    bob.say(type="leave", id="x")
    of(bob, "left")
    of(ann, "peer-left", lambda m: m["peerId"] == bob.peer and m["reason"] == "left")
    # The same connection enters another room, and this one again.
    bob.say(type="join", roomId="r2", identity="bob", id="y")
    of(bob, "joined", lambda m: m["room"]["roomId"] == "r2")
    bob.say(type="join", roomId="r1", identity="bob", id="z")
    again = of(bob, "joined", lambda m: m["room"]["roomId"] == "r1")
    assert len(again["peers"]) == 2, again
    of(ann, "peer-joined", lambda m: m["identity"] == "bob")


@test
def refused(redis, a, b, c):
    """Passwords, locks and roles are the home's."""
    ann = join(a, "p1", "ann", create={"password": "open"})
    bob = b.client()
    bob.say(type="join", roomId="p1", identity="bob", password="wrong", id="1")
    assert of(bob, "error")["code"] == "bad-password"
    bob.say(type="join", roomId="p1", identity="bob", password="open", id="2")
    bob.peer = of(bob, "joined")["peerId"]
    bob.say(type="kick", peerId=ann.peer, id="3")
    assert of(bob, "error")["code"] == "forbidden"
    # A member of one room is refused by another, and stays where it is.
    join(c, "p2", "cat", create={"locked": True})
    bob.say(type="join", roomId="p2", identity="bob", id="4")
    assert of(bob, "error", lambda m: m.get("id") == "4")["code"] == "room-locked"
    carries(bob, ann, "still here")
    ann.say(type="kick", peerId=bob.peer, reason="enough", id="5")
    assert of(bob, "kicked")["reason"] == "enough"
    assert closed(bob) == 4002


@test
def resumed_through_another_node(redis, a, b, c):
    """A connection is lost, and its client comes back through another node."""
    ann, bob = join(a, "q1", "ann"), join(b, "q1", "bob")
    carries(ann, bob, "before")
    bob.socket.close()
    of(ann, "peer-state", lambda m: m.get("connection") == "away")
    ann.say(type="message", content="meanwhile", id="m")
    back = resume(c, bob)
    assert back.resumed["gap"] is False, back.resumed
    of(back, "message", lambda m: m["content"] == "meanwhile")
    of(ann, "peer-state", lambda m: m.get("connection") == "online")
    carries(back, ann, "after")


@test
def calls(redis, a, b, c):
    """People who are registered at several nodes call each other."""
    people = []
    for node, name in [(a, "dan"), (b, "eve")]:
        client = node.client()
        client.say(type="register", identity=name, id="r")
        of(client, "registered")
        people.append(client)
    dan, eve = people
    dan.say(type="call", to="eve", id="c")
    call = of(dan, "calling")["callId"]
    of(eve, "call", lambda m: m["fromIdentity"] == "dan")
    eve.say(type="accept", callId=call, id="a")
    of(dan, "accept")
    eve.say(type="hangup", callId=call, id="h")
    of(dan, "hangup")


@test
def revoked(redis, a, b, c):
    """A kick at one node is a revocation at all, and at one that starts later."""
    ann, bob = join(a, "v1", "ann"), join(a, "v1", "bob")
    ann.say(type="kick", peerId=bob.peer, id="k")
    closed(bob)
    wait(lambda: int(redis.ask("ZCARD", "callbox:v")) > 0, "the revocation is kept")


@test
def nodes_are_listed(redis, a, b, c):
    """GET /v1/nodes shows all of them."""
    wait(lambda: len(b.get("/v1/nodes")["nodes"]) == 3, "three nodes")
    wait(
        lambda: sorted(str(n["name"]) for n in b.get("/v1/nodes")["nodes"]) == ["a", "b", "c"],
        "names of nodes",
    )
    assert b.metric("cluster_up") == 1 and b.metric("cluster_nodes") == 3


@test
def events_come_once(redis, a, b, c):
    """What happens in a room is an event of its home alone."""
    ann, bob = join(a, "e1", "ann"), join(b, "e1", "bob")
    for client in (bob, ann):
        client.say(type="leave", id="x")
        of(client, "left")
    # Each node sends its events in order: when this one is there, those before it are.
    for node in (a, b, c):
        join(node, "last-" + node.name, "eve")
    seen = lambda room: [event for event in BACKEND.events if event.get("room") == room]
    wait(lambda: all(seen("last-" + node.name) for node in (a, b, c)), "the events of all nodes")
    kinds = sorted(event["type"] for event in seen("e1"))
    assert kinds == ["peer-joined", "peer-joined", "peer-left", "peer-left", "room-ended", "room-started"], kinds
    # An event's id begins with what its process has made up.
    assert len({event["id"].split("-")[0] for event in seen("e1")}) == 1, seen("e1")


@test
def edge_dies(redis, a, b, c):
    """kill -9 of the node of a socket: its client resumes through another one, without a gap."""
    ann, bob = join(a, "e1", "ann"), join(b, "e1", "bob")
    carries(ann, bob, "before")
    began = time.time()
    b.kill()
    closed(bob)
    back = resume(c, bob)
    took = time.time() - began
    assert back.resumed["gap"] is False, back.resumed
    carries(ann, back, "after")
    b.start()
    return took


@test
def home_dies(redis, a, b, c):
    """kill -9 of a room's node: its members resume elsewhere, within lease + 5 s."""
    ann, bob = join(a, "h1", "ann", create={"password": "open"}), join(b, "h1", "bob", password="open")
    carries(ann, bob, "before")
    time.sleep(0.5)
    began = time.time()
    a.kill()
    closed(ann)
    back = resume(c, ann)
    code = closed(bob)
    assert code == 1012, code
    again = resume(b, bob)
    took = time.time() - began
    assert back.resumed["gap"] is True
    assert took < 16, took
    carries(back, again, "after")
    carries(again, back, "after too")
    again.say(type="list", id="l")
    peers = of(again, "peers")["peers"]
    assert [(p["identity"], p["connection"], p["role"]) for p in peers] == [("ann", "online", "host")], peers
    dave = c.client()
    dave.say(type="join", roomId="h1", identity="dave", id="d")
    assert of(dave, "error")["code"] == "bad-password"
    a.start()
    return took


@test
def home_restarts(redis, a, b, c):
    """A node that is killed and comes back at once takes less than the lease."""
    ann, bob = join(a, "s1", "ann"), join(b, "s1", "bob")
    carries(ann, bob, "before")
    time.sleep(0.5)
    began = time.time()
    a.kill()
    a.start()
    back, again = resume(a, ann), None
    closed(bob)
    again = resume(b, bob)
    carries(back, again, "after")
    return time.time() - began


@test
def frozen_briefly(redis, a, b, c):
    """SIGSTOP of a home for 3 s is a pause."""
    ann, bob = join(a, "f1", "ann"), join(b, "f1", "bob")
    carries(ann, bob, "before")
    a.kill(signal.SIGSTOP)
    time.sleep(3)
    bob.say(type="message", content="during", id="d")
    a.kill(signal.SIGCONT)
    of(ann, "message", lambda m: m["content"] == "during")
    carries(ann, bob, "after")


@test
def frozen_for_long(redis, a, b, c):
    """SIGSTOP of a home for longer than the lease: it yields before it takes an input."""
    ann, bob = join(a, "g1", "ann"), join(b, "g1", "bob")
    carries(ann, bob, "before")
    time.sleep(0.5)
    a.kill(signal.SIGSTOP)
    assert closed(bob, 30) == 1012
    again = resume(b, bob)
    ann.say(type="message", content="into the frozen node", id="m")
    a.kill(signal.SIGCONT)
    assert closed(ann) == 1012
    back = resume(a, ann)
    carries(back, again, "after")
    assert not [m for m in again.seen if m.get("content") == "into the frozen node"]
    wait(lambda: a.metric("cluster_yields_total") >= 1, "it has yielded")


@test
def redis_restarts_with_data(redis, a, b, c):
    """Redis restarts with its data: who is at home notices nothing."""
    ann, bob = join(a, "d1", "ann"), join(a, "d1", "bob")
    cat = join(b, "d1", "cat")
    carries(ann, cat, "before")
    time.sleep(0.5)
    redis.end(keeps=True)
    carries(ann, bob, "without Redis")
    redis.start()
    carries(ann, bob, "with Redis")
    if not settles(cat):
        cat = resume(b, cat)
    carries(ann, cat, "across again")
    late = join(c, "d1", "late")
    carries(late, ann, "a newcomer")


@test
def redis_restarts_empty(redis, a, b, c):
    """Redis restarts empty: nothing is lost while nodes live."""
    ann, bob = join(a, "w1", "ann"), join(b, "w1", "bob")
    carries(ann, bob, "before")
    redis.end(keeps=False)
    redis.start()
    began = time.time()
    if not settles(bob):
        bob = resume(b, bob)
    carries(ann, bob, "after")
    late = join(c, "w1", "late")
    assert len(late.joined["peers"]) == 2, late.joined
    carries(late, ann, "a newcomer")
    return time.time() - began


@test
def redis_frozen(redis, a, b, c):
    """Redis stands still for longer than the lease: rooms go on at home, others wait (serve)."""
    ann, bob = join(a, "i1", "ann"), join(a, "i1", "bob")
    carries(ann, bob, "before")
    redis.process.send_signal(signal.SIGSTOP)
    try:
        began = time.time()
        wait(lambda: a.metric("cluster_isolated") == 1, "the node serves alone")
        took = time.time() - began
        carries(ann, bob, "alone")
        late = a.client()
        late.say(type="join", roomId="i2", id="1")
        assert closed(late) == 1013
    finally:
        redis.process.send_signal(signal.SIGCONT)
    wait(lambda: a.metric("cluster_isolated") == 0, "the node is one of several again")
    if not settles(ann):
        ann = resume(b, ann)
    if not settles(bob):
        bob = resume(c, bob)
    carries(ann, bob, "together")
    for node in (a, b, c):
        wait(lambda: node.metric("cluster_nodes") == 3, "three nodes")
    return took


@test
def isolated_stop(redis, a, b, c):
    """With isolated = "stop", a node without Redis closes its connections with 1013."""
    d = Node("d", redis, isolated="stop")
    try:
        ann = join(d, "k1", "ann")
        redis.process.send_signal(signal.SIGSTOP)
        began = time.time()
        assert closed(ann) == 1013
        took = time.time() - began
        # Newcomers are sent away at once, and the balancer learns of it.
        assert not d.is_ready()
        try:
            d.client()
        except (AssertionError, OSError):
            pass
        else:
            raise AssertionError("a newcomer waits at a node that has stopped")
        redis.process.send_signal(signal.SIGCONT)
        wait(d.is_ready, "it serves again")
        join(d, "k2", "ann")
        return took
    finally:
        redis.process.send_signal(signal.SIGCONT)
        d.remove()


@test
def drained(redis, a, b, c):
    """SIGTERM: rooms move with their images, and no frame is lost."""
    ann, bob = join(a, "m1", "ann"), join(b, "m1", "bob")
    carries(ann, bob, "before")
    began = time.time()
    a.process.send_signal(signal.SIGTERM)
    assert closed(ann) == 1012
    assert closed(bob) == 1012
    again = resume(b, bob)
    back = resume(c, ann)
    took = time.time() - began
    assert back.resumed["gap"] is False and again.resumed["gap"] is False
    carries(back, again, "after")
    assert not [m for m in again.seen if m.get("type") == "peer-left"]
    a.process.wait(timeout=30)
    a.start()
    return took


@test
def rolled_while_pairs_talk(redis, a, b, c):
    """All nodes are restarted one after the other while pairs talk: nothing is lost, repeated or told as a gap."""
    count = int(os.environ.get("PAIRS", "30"))
    pairs = Pairs([a, b, c], count, 10 if count <= 100 else 2, "roll")
    began = time.time()
    pairs.talk(2)
    for node in (a, b, c):
        node.serves = False
        node.process.send_signal(signal.SIGTERM)
        pairs.talk(60, lambda: node.process.poll() is not None)
        assert node.process.poll() is not None, "it does not end"
        node.start(ready=False)
        pairs.talk(60, node.is_ready)
        node.serves = True
        pairs.talk(2)
    pairs.settle()
    summary = pairs.summary()
    pairs.end()
    print("     %d pairs: %s" % (count, summary))
    for what in ("lost", "twice", "unsorted", "gaps", "peer-left"):
        assert summary[what] == 0, summary
    assert summary["closes"] >= count, summary
    return time.time() - began


@test
def subscriptions_are_cut(redis, a, b, c):
    """Redis drops the subscriptions of all nodes: links are reset, and clients notice nothing."""
    quiet = Pairs([a, b], 20, 1, "cut")
    nodes, resets = (a, b, c), "cluster_link_resets_total"
    for round in range(3):
        quiet.talk(1)
        quiet.settle()
        before = sum(node.metric(resets) for node in nodes)
        redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
        wait(lambda: sum(node.metric(resets) for node in nodes) > before, "links are reset")
        quiet.talk(0.5, lambda: False) if round == 2 else time.sleep(1)
        quiet.turn(0)
        if round < 2:
            assert quiet.summary()["closes"] == 0, quiet.summary()
    quiet.settle()
    summary = quiet.summary()
    quiet.end()
    for what in ("lost", "twice", "unsorted", "gaps", "peer-left"):
        assert summary[what] == 0, summary


@test
def redis_restarts_under_load(redis, a, b, c):
    """Redis restarts while pairs talk: who had nothing on the way keeps its socket."""
    quiet, loud = Pairs([a, b], 20, 1, "quiet"), Pairs([a, b, c], 20, 10, "loud")
    quiet.talk(1)
    quiet.settle()
    loud.talk(1)
    began = time.time()
    redis.end(keeps=True)
    loud.talk(0.5)
    redis.start()
    loud.talk(3)
    quiet.turn(0)
    assert quiet.summary()["closes"] == 0, quiet.summary()
    quiet.talk(1)
    for pairs in (quiet, loud):
        pairs.settle()
        summary = pairs.summary()
        pairs.end()
        print("     %s" % summary)
        for what in ("lost", "twice", "unsorted", "gaps", "peer-left"):
            assert summary[what] == 0, summary
    return time.time() - began


def settles(client):
    """Whether a connection outlives what happens to Redis."""
    deadline = time.time() + 8
    while time.time() < deadline and not client.closed:
        client.read(0.2)
    return not client.closed


@test
def other_secret(redis, a, b, c):
    """A node with another secret is refused at its start, and says why."""
    try:
        Node("x", redis, secret="t" * 32).remove()
    except AssertionError as error:
        assert "cluster.secret" in str(error), error
        return
    raise AssertionError("it started")


if __name__ == "__main__":
    run_in_turn(TESTS, ONLY, lambda redis: [Node(name, redis, BACKEND) for name in "abc"])
