"""Clients of PeerJS at several nodes: they reach each other by their names, a name is one client's, and both hold when
the node of the names dies, drains, or Redis restarts."""

import os
import signal
import sys
import time

# What the configuration of all nodes says beside the keys of harness.py.
os.environ["CALLBOX_COMPAT__ENABLED"] = '["peerjs"]'

from harness import Node, Redis, WebSocket, closed, of, run_in_turn, wait

ONLY = sys.argv[2:]

TESTS = []


def test(function):
    TESTS.append(function)
    return function


class Peer(WebSocket):
    """A client of PeerJS: an id, and a token that stays its own."""

    def __init__(self, node, name, token=None):
        self.name, self.token = name, token or "token of " + name
        self.path = "/peerjs/peerjs?key=peerjs&id=%s&token=%s" % (name, self.token.replace(" ", "%20"))
        WebSocket.__init__(self, ("127.0.0.1", node.port))

    def sends(self, kind, other, **payload):
        self.say(type=kind, dst=other.name, payload=payload)

    def to(self, other, kind, text):
        self.sends(kind, other, sdp={"sdp": text})
        got = of(other, kind, lambda m: m["payload"]["sdp"]["sdp"] == text)
        assert (got["src"], got["dst"]) == (self.name, other.name), got


def opened(node, name, token=None):
    peer = Peer(node, name, token)
    of(peer, "OPEN")
    return peer


def comes_back(node, peer, patience=30):
    """As `reconnect()` of the library: again and again under its id, which is never taken by its own old socket."""
    deadline = time.time() + patience
    while True:
        try:
            return opened(node, peer.name, peer.token)
        except (AssertionError, OSError) as error:
            assert "ID-TAKEN" not in str(error) and "ERROR" not in str(error), error
            assert time.time() < deadline, error
            time.sleep(0.2)


def talk(ann, bob, text):
    """What a call begins with."""
    ann.to(bob, "OFFER", "offer " + text)
    bob.to(ann, "ANSWER", "answer " + text)
    for sender, receiver in [(ann, bob), (bob, ann)]:
        sender.sends("CANDIDATE", receiver, candidate={"candidate": text})
        of(receiver, "CANDIDATE", lambda m: m["payload"]["candidate"]["candidate"] == text)


def together(peers, done, patience=20):
    """Reads all of them, as browsers do, until that is so."""
    deadline = time.time() + patience
    while not done() and time.time() < deadline:
        for peer in peers:
            peer.read(0.05)
    assert done(), [peer.seen for peer in peers]


def home(nodes):
    """The node that has the names of clients elsewhere."""
    side = 'callbox_cluster_remote_connections{side="home"} '
    count = lambda node: next(l for l in node.get("/metrics").splitlines() if l.startswith(side))[len(side) :]
    homes = [node for node in nodes if float(count(node)) > 0]
    assert len(homes) == 1, [(node.name, count(node)) for node in nodes]
    return homes[0]


@test
def talk_across(redis, a, b, c):
    """Clients at three nodes call each other, whichever has the names."""
    ann, bob, cat = (opened(node, "talk-" + name) for node, name in [(a, "ann"), (b, "bob"), (c, "cat")])
    for first, second in [(ann, bob), (bob, cat), (cat, ann)]:
        talk(first, second, "of %s and %s" % (first.name, second.name))
    bob.sends("LEAVE", cat)
    assert of(cat, "LEAVE")["src"] == bob.name
    # Many in a row keep their order.
    for i in range(100):
        bob.sends("CANDIDATE", cat, candidate={"candidate": i})
    got = [of(cat, "CANDIDATE")["payload"]["candidate"]["candidate"] for _ in range(100)]
    assert got == list(range(100)), got
    for node in (a, b, c):
        names = [client.get("name") for client in node.get("/v1/clients")["clients"]]
        assert sorted(name for name in names if name) == [p.name for p in (ann, bob, cat)], names


@test
def one_name_is_one_clients(redis, a, b, c):
    """An id that a client has at one node is taken at the others, and free once it has gone; its own client has it
    again at any node."""
    for node, other in [(a, b), (b, c), (c, a)]:
        name = "one-" + node.name
        first = opened(node, name)
        thief = Peer(other, name, "another token")
        together([first, thief], lambda: thief.closed)
        assert [m["type"] for m in thief.seen] == ["ID-TAKEN"], thief.seen
        # The same client at another node, its old socket still open.
        again = opened(other, name)
        friend = opened(node, "friend-" + node.name)
        talk(friend, again, "again")
        assert not [m for m in first.seen if m["type"] == "OFFER"], first.seen
        again.socket.close()
        first.socket.close()
        deadline = time.time() + 10
        while True:
            # Whom a closed socket had is free at once; the word of it is on its way.
            heir = Peer(node, name, "a third token")
            together([heir], lambda: heir.seen)
            if heir.seen[0]["type"] == "OPEN":
                break
            assert time.time() < deadline, heir.seen
        talk(friend, heir, "heir")


@test
def who_comes_late(redis, a, b, c):
    """What is sent to a name that nobody has waits for it, and is answered after a while."""
    ann = opened(a, "late-ann")
    for node in (b, c):
        late = Peer.__new__(Peer)
        late.name = "late-" + node.name
        ann.sends("OFFER", late, sdp={"sdp": "early"})
        late = opened(node, late.name)
        assert of(late, "OFFER")["payload"]["sdp"]["sdp"] == "early"
    bob = opened(b, "late-bob")
    nobody = Peer.__new__(Peer)
    nobody.name = "late-nobody"
    for peer in (ann, bob):
        peer.sends("OFFER", nobody, sdp={})
    for peer in (ann, bob):
        assert of(peer, "EXPIRE")["src"] == nobody.name


@test
def a_lost_holder(redis, a, b, c):
    """A client that gives no sign of life loses its id to another one that wants it, across nodes."""
    for node, other in [(a, b), (b, a), (b, c)]:
        silent = opened(node, "lost-" + node.name + other.name)
        heir = Peer(other, silent.name, "another token")
        of(heir, "OPEN")


@test
def redis_restarts(redis, a, b, c):
    """Clients that say nothing meanwhile keep their sockets while Redis restarts."""
    peers = [opened(node, "redis-" + node.name) for node in (a, b, c)]
    talk(peers[0], peers[1], "before")
    time.sleep(0.5)
    redis.end(keeps=True)
    redis.start()
    resets = lambda: sum(node.metric("cluster_link_resets_total") for node in (a, b, c))
    wait(lambda: all(node.metric("cluster_up") == 1 for node in (a, b, c)) and resets() > 0, "the links are reset")
    for first, second in [(0, 1), (1, 2), (2, 0)]:
        talk(peers[first], peers[second], "after")
    assert not any(peer.closed for peer in peers)


def moves(redis, nodes, how):
    peers = [opened(node, "move-%d-%s" % (how, node.name)) for node in nodes]
    talk(peers[0], peers[1], "before")
    lost = home(nodes)
    began = time.time()
    lost.kill(how)
    for peer in peers:
        assert closed(peer, 30) in (1012, "end"), peer.closed
    left = [node for node in nodes if node is not lost]
    # Each at another node than before, where that still is.
    again = [comes_back(node, peer) for node, peer in zip([left[1], left[0], left[1]], peers)]
    took = time.time() - began
    for first, second in [(0, 1), (1, 2), (2, 0)]:
        talk(again[first], again[second], "after")
    thief = Peer(left[0], again[0].name, "another token")
    together(again + [thief], lambda: thief.closed)
    assert [m["type"] for m in thief.seen] == ["ID-TAKEN"], thief.seen
    lost.start()
    wait(lambda: all(node.metric("cluster_nodes") == 3 for node in nodes), "all nodes know each other")
    return took


@test
def home_dies(redis, a, b, c):
    """kill -9 of the node of the names: all come back under their ids, and talk."""
    return moves(redis, [a, b, c], signal.SIGKILL)


@test
def home_drains(redis, a, b, c):
    """The node of the names is ended in order."""
    return moves(redis, [a, b, c], signal.SIGTERM)


if __name__ == "__main__":
    def start(redis):
        nodes = [Node(name, redis) for name in "abc"]
        for node in nodes:
            wait(lambda: node.metric("cluster_nodes") == 3, "all nodes know each other")
        return nodes

    run_in_turn(TESTS, ONLY, start)
