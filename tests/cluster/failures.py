"""Failures that take a Redis, nodes or a network of their own: each is provoked and timed, and what clients see
is what docs/cluster.md says. failures.py PROGRAM GROUP [TEST…]; prints what each took, and ends with 1 at the first that
fails. The group `network` needs a network of its own: unshare --net --mount."""

import ctypes
import os
import re
import signal
import socket
import subprocess
import threading
import time

from harness import BOUND, Node, WebSocket, balance, carries, closed, enters, join, of, resume, wait
from proxy import Proxy
from place import GROUP, LEASE, By, anew, back, end, free_port, run_each, stays, test


# -- Redis


@test("store")
def redis_is_down_for_long(place):
    """Redis refuses connections for longer than the lease: rooms go on at home, what goes across waits."""
    redis = place.redis()
    a, b, c = place.three(redis)
    ann, bob, cat = join(a, "x", "ann"), join(a, "x", "bob"), join(b, "x", "cat")
    carries(ann, cat, "before")
    time.sleep(0.5)
    redis.process.terminate()
    redis.process.wait()
    wait(lambda: a.metric("cluster_isolated") == 1, "the home serves alone")
    carries(ann, bob, "alone")
    late = c.client()
    late.say(type="join", roomId="y", id="1")
    assert closed(late) == 1013
    time.sleep(4)
    carries(bob, ann, "still alone")
    stays(ann, bob)
    redis.start()
    began = time.time()
    cat = back(cat, b)
    carries(ann, cat, "across again")
    stays(ann, bob)
    carries(join(c, "x", "dan"), ann, "a newcomer")
    return time.time() - began


@test("store")
def redis_is_frozen_for_15_s(place):
    """SIGSTOP of Redis for 15 s: nobody at home is closed, and nothing is lost across."""
    redis = place.redis()
    a, b, _ = place.three(redis)
    ann, bob, cat = join(a, "x", "ann"), join(a, "x", "bob"), join(b, "x", "cat")
    carries(ann, cat, "before")
    redis.process.send_signal(signal.SIGSTOP)
    began = time.time()
    wait(lambda: a.metric("cluster_isolated") == 1, "the home serves alone")
    while time.time() < began + 15:
        carries(ann, bob, "at %.1f" % (time.time() - began))
        time.sleep(0.5)
    stays(ann, bob)
    ann.say(type="message", content="for cat", id="c")
    redis.process.send_signal(signal.SIGCONT)
    began = time.time()
    cat = back(cat, b)
    of(cat, "message", lambda m: m["content"] == "for cat")
    carries(cat, ann, "across again")
    stays(ann, bob)
    return time.time() - began


@test("store")
def clients_are_killed(place):
    """CLIENT KILL of all connections of all nodes: who is at home notices nothing, the others lose nothing."""
    redis = place.redis()
    a, b, c = place.three(redis)
    ann, bob, cat = join(a, "x", "ann"), join(a, "x", "bob"), join(b, "x", "cat")
    carries(ann, cat, "before")
    began = time.time()
    for kind in ("normal", "pubsub", "normal"):
        redis.ask("CLIENT", "KILL", "TYPE", kind)
    ann.say(type="message", content="for all", id="a")
    of(bob, "message", lambda m: m["content"] == "for all")
    cat = back(cat, c)
    of(cat, "message", lambda m: m["content"] == "for all")
    carries(cat, ann, "across again")
    stays(ann, bob)
    return time.time() - began


@test("store")
def clients_are_paused(place):
    """CLIENT PAUSE for less than the lease is a pause."""
    redis = place.redis()
    a, b, c = place.three(redis)
    ann, cat = join(a, "x", "ann"), join(b, "x", "cat")
    carries(ann, cat, "before")
    began = time.time()
    redis.ask("CLIENT", "PAUSE", "3000", "ALL")
    ann.say(type="message", content="during", id="d")
    cat = back(cat, c)
    of(cat, "message", lambda m: m["content"] == "during")
    carries(cat, ann, "after")
    stays(ann)
    return time.time() - began


@test("store")
def memory_is_full(place):
    """maxmemory with noeviction: Redis refuses what is written. Rooms go on at home until there is room again."""
    redis = place.redis()
    a, b, c = place.three(redis)
    ann, bob, cat = join(a, "x", "ann"), join(a, "x", "bob"), join(b, "x", "cat")
    carries(ann, cat, "before")
    redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")
    wait(lambda: a.metric("cluster_isolated") == 1, "the home serves alone")
    carries(ann, bob, "alone")
    late = c.client()
    late.say(type="join", roomId="y", id="1")
    assert closed(late) == 1013
    stays(ann, bob)
    redis.ask("CONFIG", "SET", "maxmemory", "0")
    began = time.time()
    wait(lambda: a.metric("cluster_isolated") == 0, "the home is one of several again")
    cat = back(cat, b)
    carries(ann, cat, "across again")
    carries(join(c, "x", "dan"), ann, "a newcomer")
    stays(ann, bob)
    return time.time() - began


@test("store")
def redis_loses_its_last_second(place):
    """Redis comes back as it was a moment ago: what it lacks is written again."""
    redis = place.redis()
    a, b, c = place.three(redis)
    ann = join(a, "x", "ann")
    redis.ask("SAVE")
    bob, cat = join(b, "x", "bob"), join(c, "y", "cat")
    carries(ann, bob, "before")
    time.sleep(0.3)
    redis.process.kill()
    redis.process.wait()
    redis.start()
    began = time.time()
    bob = back(bob, c)
    carries(ann, bob, "after")
    stays(ann, cat)
    took = time.time() - began
    members = lambda: sum(
        sum(field.startswith("m:") for field in redis.ask("HKEYS", key).split())
        for key in redis.ask("KEYS", "callbox:r:*").split()
    )
    wait(lambda: members() == 3, "all three are in Redis again")
    return took


@test("store")
def home_and_redis_die(place):
    """The home and a Redis that keeps nothing die: the room is gone, and its members join anew."""
    redis = place.redis()
    a, b, c = place.three(redis)
    ann, bob = join(a, "x", "ann", create={"password": "open"}), join(b, "x", "bob", password="open")
    carries(ann, bob, "before")
    began = time.time()
    a.kill()
    redis.end(keeps=False)
    redis.start()
    for client, node in ((ann, c), (bob, b)):
        assert closed(client, 30) in (1012, 1013, "end"), client.closed
        try:
            resume(node, client)
        except AssertionError as error:
            assert "resume-failed" in str(error), error
            continue
        raise AssertionError("a session out of nothing")
    ann, bob = anew(c, "x", "ann"), anew(b, "x", "bob")
    carries(ann, bob, "anew")
    took = time.time() - began
    ann.say(type="list", id="l")
    assert [peer["identity"] for peer in of(ann, "peers")["peers"]] == ["bob"]
    return took


# -- nodes


@test("nodes")
def frozen_for_20_s(place):
    """SIGSTOP of a home for 20 s: its room goes on elsewhere, and waking it takes no input."""
    redis = place.redis()
    a, b, c = place.three(redis)
    ann, bob = join(a, "x", "ann"), join(b, "x", "bob")
    carries(ann, bob, "before")
    time.sleep(0.5)
    a.kill(signal.SIGSTOP)
    began = time.time()
    assert closed(bob, 30) == 1012
    bob = resume(b, bob)
    took = time.time() - began
    assert bob.resumed["gap"] is True
    ann.say(type="message", content="into the frozen node", id="m")
    cat = join(c, "x", "cat")
    carries(cat, bob, "meanwhile")
    time.sleep(max(0, began + 20 - time.time()))
    a.kill(signal.SIGCONT)
    assert closed(ann) == 1012
    ann = resume(c, ann)
    carries(ann, bob, "after")
    for client in (bob, cat):
        client.read(0.2)
        assert not [m for m in client.seen if m.get("content") == "into the frozen node"]
        assert not [m for m in client.seen if m.get("type") == "peer-left"]
    ann.say(type="list", id="l")
    peers = {peer["identity"]: peer["connection"] for peer in of(ann, "peers")["peers"]}
    assert peers == {"bob": "online", "cat": "online"}, peers
    return took


@test("nodes")
def edge_is_frozen(place):
    """SIGSTOP of an edge for longer than the lease: waking, it finds its connections given up."""
    redis = place.redis()
    a, b, c = place.three(redis)
    ann, bob = join(a, "x", "ann"), join(b, "x", "bob")
    carries(ann, bob, "before")
    b.kill(signal.SIGSTOP)
    began = time.time()
    of(ann, "peer-state", lambda m: m.get("connection") == "away", patience=30)
    took = time.time() - began
    bob_again = resume(c, bob)
    assert bob_again.resumed["gap"] is False
    of(ann, "peer-state", lambda m: m.get("connection") == "online")
    b.kill(signal.SIGCONT)
    assert closed(bob) == 1012
    carries(bob_again, ann, "after")
    stays(ann, bob_again)
    return took


@test("nodes")
def two_of_one_name(place):
    """A node that starts under a living one's name buries it; its clients go on."""
    redis = place.redis()
    a, b, _ = place.three(redis)
    ann, bob = join(a, "x", "ann"), join(b, "x", "bob")
    carries(ann, bob, "before")
    began = time.time()
    twin = place.node("a", redis)
    wait(lambda: b.metric("cluster_nodes") >= 3, "the twin is there")
    for _ in range(3):
        ann = ann if not ann.closed else resume(b, ann)
        bob = bob if not bob.closed else resume(twin, bob)
        ann.read(1), bob.read(1)
    said = "another node that lives has the name a too"
    wait(lambda: said in a.said() and said in twin.said(), "both say so")
    ann = resume(b, ann) if ann.closed else ann
    bob = resume(twin, bob) if bob.closed else bob
    carries(ann, bob, "after")
    return time.time() - began


@test("nodes")
def behind_a_balancer(place):
    """Clients know the balancer alone: each comes back through it when its node dies."""
    redis = place.redis()
    nodes = place.three(redis)
    listener = socket.create_server(("127.0.0.1", 0))
    place.parts.append(listener.close)
    threading.Thread(target=balance, args=(listener, nodes), daemon=True).start()

    class Balancer:
        port = listener.getsockname()[1]
        client = Node.client

    front = Balancer()
    people = [join(front, "x", "p%d" % number) for number in range(6)]
    carries(people[0], people[5], "before")
    began = time.time()
    nodes[0].kill()
    deadline = time.time() + 30
    while True:
        # Who is connected to another node learns of the death with the burial.
        for index, client in enumerate(people):
            client.read(0.05)
            people[index] = resume(front, client) if client.closed else client
        people[0].say(type="list", id="l%f" % time.time())
        try:
            peers = of(people[0], "peers", patience=5)["peers"]
        except AssertionError:
            continue
        if len(peers) == 5 and all(peer["connection"] == "online" for peer in peers):
            break
        assert time.time() < deadline, peers
    took = time.time() - began
    carries(people[0], people[5], "after")
    carries(people[5], people[1], "after too")
    return took


# -- ways to Redis


@test("ways")
def sentinel(place):
    """The primary dies: sentinels name its replica, and the nodes go on there."""
    primary_port, replica_port, port = free_port(), free_port(), free_port()
    bound = ("--bind", "127.0.0.1", "--port")
    primary = place.redis("primary", (*bound, str(primary_port)))
    replica = place.redis("replica", (*bound, str(replica_port), "--replicaof", "127.0.0.1 %d" % primary_port))
    wait(lambda: "master_link_status:up" in replica.ask("INFO", "replication"), "the replica follows")
    config = place.path("sentinel.conf")
    with open(config, "w") as file:
        file.write("port %d\nbind 127.0.0.1\ndir %s\n" % (port, place.folder))
        file.write("sentinel monitor main 127.0.0.1 %d 1\n" % primary_port)
        file.write("sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n")
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(BOUND + ["redis-server", config, "--sentinel"], stdout=quiet, stderr=quiet)
    place.parts.append(lambda: end(process))

    def sentinels(*words):
        done = subprocess.run(["redis-cli", "-p", str(port), *words], capture_output=True, text=True)
        return done.stdout.split()

    wait(lambda: str(primary_port) in sentinels("sentinel", "get-master-addr-by-name", "main"), "the sentinel answers")
    wait(lambda: "num-slaves 1" in " ".join(sentinels("sentinel", "master", "main")).replace("  ", " "),
         "the sentinel knows the replica")
    a, b, c = place.three(By("redis+sentinel://127.0.0.1:%d/main" % port))
    ann, bob, cat = join(a, "x", "ann"), join(a, "x", "bob"), join(b, "x", "cat")
    carries(ann, cat, "before")
    time.sleep(1)
    began = time.time()
    primary.process.kill()
    primary.process.wait()
    carries(ann, bob, "without a primary")
    wait(lambda: "role:master" in replica.ask("INFO", "replication"), "the replica is the primary")
    wait(lambda: all(node.metric("cluster_up") == 1 and node.metric("cluster_isolated") == 0 for node in (a, b, c)),
         "the nodes have found it")
    cat = back(cat, c)
    carries(ann, cat, "across again")
    took = time.time() - began
    stays(ann, bob)
    carries(enters(c, "x", "dan"), ann, "a newcomer")
    return took


@test("ways")
def far_away(place):
    """Redis is 200 ms away from each node: everything takes longer, and nothing is lost."""
    redis = place.redis()
    ways = [Proxy(place.path(name + ".sock"), redis.socket, 0.1) for name in "abc"]
    for way in ways:
        place.parts.append(way.end)
    a, b, c = [place.node(name, way) for name, way in zip("abc", ways)]
    for node in (a, b, c):
        wait(lambda: node.metric("cluster_nodes") == 3, "%s knows three nodes" % node.name)
    ann, bob, cat = join(a, "x", "ann"), join(b, "x", "bob"), join(c, "x", "cat")
    began = time.time()
    for number in range(50):
        bob.say(type="message", content=number, id="n%d" % number)
    for client in (ann, cat):
        got = [of(client, "message")["content"] for _ in range(50)]
        assert got == list(range(50)), got
    took = time.time() - began
    for node in (a, b, c):
        assert node.metric("cluster_isolated") == 0 and node.metric("cluster_link_resets_total") == 0
    a.process.send_signal(signal.SIGTERM)
    ann, bob, cat = back(ann, b), back(bob, c), back(cat, c)
    carries(ann, cat, "moved")
    a.process.wait(timeout=30)
    return took


class Slow(WebSocket):
    """A client that reads nothing for as long as it is not asked to, and has little room."""

    def __init__(self, node):
        make = socket.create_connection

        def narrow(address, patience):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(patience)
            client.connect(address)
            return client

        socket.create_connection = narrow
        try:
            super().__init__(("127.0.0.1", node.port))
        finally:
            socket.create_connection = make


@test("ways")
def slow_consumer(place):
    """A client that does not read is closed with 4003 by the node that it is connected to; others feel nothing."""
    os.environ.update({"CALLBOX_SIGNAL__OUTBOX": "64KiB", "CALLBOX_SIGNAL__BYTE_RATE": "16MiB/s"})
    try:
        redis = place.redis()
        a, b, c = place.three(redis)
    finally:
        for name in ("CALLBOX_SIGNAL__OUTBOX", "CALLBOX_SIGNAL__BYTE_RATE"):
            del os.environ[name]
    ann, cat, slow = join(a, "x", "ann"), join(c, "x", "cat"), Slow(b)
    slow.say(type="join", roomId="x", identity="slow", id="j")
    of(slow, "joined")
    text, number, deadline = "x" * 20_000, 0, time.time() + 60
    is_away = lambda m: m.get("connection") == "away"
    while not any(is_away(m) for m in ann.seen) and time.time() < deadline:
        ann.say(type="message", content=[number, text], id="n%d" % number)
        of(ann, "ack", lambda m: m.get("id") == "n%d" % number)
        assert of(cat, "message")["content"] == [number, text]
        number += 1
    assert any(is_away(m) for m in ann.seen), "%d messages were not too many" % number
    assert closed(slow, 30) == 4003, slow.closed
    stays(ann, cat)
    carries(cat, ann, "after")
    for node in (a, b, c):
        assert node.metric("cluster_link_resets_total") == 0


@test("ways")
def tls_and_acl(place):
    """Redis over TLS with client certificates, by a user with the rights of docs/cluster.md and another prefix."""
    with open(os.path.join(os.path.dirname(__file__), "..", "..", "docs", "cluster.md")) as file:
        line = re.search(r"^user callbox on .*$", file.read(), re.M).group(0)
    line = line.replace("PASSWORD", "pass-word").replace("callbox:*", "other:*")
    acl, port = place.path("users.acl"), free_port()
    with open(acl, "w") as file:
        file.write("user default on nopass ~* &* +@all\n%s\n" % line)

    def openssl(*words):
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=place.folder)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=suite", "-days", "2")
    for name in ("redis", "node"):
        openssl("req", *key, "-keyout", name + ".key", "-out", name + ".csr", "-subj", "/CN=" + name)
        with open(place.path("san"), "w") as file:
            file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", name + ".pem", "-days", "2", "-extfile", "san")
    words = ["--port", "0", "--bind", "127.0.0.1", "--tls-port", str(port), "--tls-auth-clients", "yes", "--aclfile", acl]
    for word, name in (("cert", "redis.pem"), ("key", "redis.key"), ("ca-cert", "ca.pem")):
        words += ["--tls-%s-file" % word, place.path(name)]
    redis = place.redis(words=words)
    keys = {
        "prefix": "other",
        "ca": place.path("ca.pem"),
        "cert": place.path("node.pem"),
        "key": place.path("node.key"),
    }
    a, b, c = place.three(By("rediss://callbox:pass-word@localhost:%d/0" % port), **keys)
    ann, bob = join(a, "x", "ann"), join(b, "x", "bob")
    carries(ann, bob, "over TLS")
    began = time.time()
    ann.say(type="kick", peerId=bob.peer, id="k")
    assert closed(bob) == 4002
    a.process.send_signal(signal.SIGTERM)
    assert closed(ann) == 1012
    ann = resume(c, ann)
    assert ann.resumed["gap"] is False
    carries(anew(b, "x", "dan"), ann, "after a drain")
    took = time.time() - began
    a.process.wait(timeout=30)
    assert not [key for key in redis.ask("KEYS", "*").split() if not key.startswith("other:")]
    for node in (a, b, c):
        assert "NOPERM" not in node.said() and "permission" not in node.said(), node.said()
    return took


# -- networks


class There(Node):
    """A node in a network namespace of its own, as are those who ask it."""

    def __init__(self, name, redis, **keys):
        self.PREFIX = ["ip", "netns", "exec", name]
        super().__init__(name, redis, **keys)

    def inside(self, call):
        libc, results = ctypes.CDLL(None, use_errno=True), []

        def run():
            # A thread has its own network, and a socket keeps the one in which it was made.
            with open("/var/run/netns/" + self.name) as file:
                if libc.setns(file.fileno(), 0x40000000):
                    return results.append(OSError(ctypes.get_errno(), "setns"))
            try:
                results.append(call())
            except Exception as error:
                results.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if isinstance(results[0], Exception):
            raise results[0]
        return results[0]

    def get(self, path, method="GET"):
        return self.inside(lambda: super(There, self).get(path, method))

    def client(self):
        return self.inside(super().client)

    def rules(self, *rules):
        """The firewall of the node's network is these rules of both directions."""
        text = "table inet hand\ndelete table inet hand\n"
        if rules:
            text += "table inet hand {\n"
            for chain in ("input", "output"):
                own = [rule for at, rule in rules if at == chain]
                text += " chain %s { type filter hook %s priority 0; %s }\n" % (chain, chain, " ".join(r + ";" for r in own))
            text += "}\n"
        ruled = ["ip", "netns", "exec", self.name, "nft", "-f", "-"]
        subprocess.run(ruled, input=text, text=True, check=True, capture_output=True)


def run(*words):
    subprocess.run(words, check=True, capture_output=True)


def networks(place, **keys):
    """Redis here, and three nodes in networks of their own."""
    redis = place.redis(words=("--bind", "10.77.0.1", "--port", "6379", "--protected-mode", "no"))
    nodes = []
    for name in "abc":
        nodes.append(place.node(name, By("redis://10.77.0.1:6379/"), kind=There, **keys))
    for node in nodes:
        wait(lambda: node.metric("cluster_nodes") == 3, "%s knows three nodes" % node.name)
    return redis, nodes


def prepare_networks():
    run("ip", "link", "set", "lo", "up")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    os.makedirs("/run/netns")
    run("ip", "link", "add", "hand0", "type", "bridge")
    run("ip", "address", "add", "10.77.0.1/24", "dev", "hand0")
    run("ip", "link", "set", "hand0", "up")
    for number, name in enumerate("abc"):
        run("ip", "netns", "add", name)
        run("ip", "link", "add", "hand-" + name, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", "hand-" + name, "master", "hand0", "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", name, "address", "add", "10.77.0.%d/24" % (number + 2), "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")


OUT, IN = ("output", "tcp dport 6379 drop"), ("input", "tcp sport 6379 drop")


@test("network")
def cut_from_redis(place):
    """A node without a way to Redis serves its half of a room until the cut ends; then that half resumes."""
    _, (a, b, c) = networks(place)
    return halves(a, b, c, OUT, IN)


@test("network")
def loses_what_it_sends(place):
    """What a node sends to Redis is lost, what Redis sends is not: the same."""
    _, (a, b, c) = networks(place)
    return halves(a, b, c, OUT)


@test("network")
def loses_what_it_gets(place):
    """What Redis sends to a node is lost, what the node sends is not: the same."""
    _, (a, b, c) = networks(place)
    return halves(a, b, c, IN)


def halves(a, b, c, *rules):
    ann, ben, bob = join(a, "x", "ann"), join(a, "x", "ben"), join(b, "x", "bob")
    carries(ann, bob, "before")
    time.sleep(0.5)
    a.rules(*rules)
    began = time.time()
    wait(lambda: a.metric("cluster_isolated") == 1, "the node serves alone")
    carries(ann, ben, "in one half")
    assert closed(bob, 40) == 1012
    bob = resume(b, bob)
    assert bob.resumed["gap"] is True
    cat = join(c, "x", "cat")
    carries(cat, bob, "in the other half")
    took = time.time() - began
    assert took < LEASE + 15, took
    carries(ben, ann, "in one half still")
    a.rules()
    ended = time.time()
    assert closed(ann, 40) == 1012 and closed(ben, 40) == 1012
    ann, ben = resume(a, ann), resume(c, ben)
    print("     taken over after %.1f s, together again %.1f s after the end" % (took, time.time() - ended))
    carries(ann, bob, "one room again")
    carries(cat, ben, "one room again too")
    ann.say(type="list", id="l")
    peers = {peer["identity"]: peer["connection"] for peer in of(ann, "peers")["peers"]}
    assert peers == {"ben": "online", "bob": "online", "cat": "online"}, peers
    return time.time() - began


@test("network")
def cut_and_stopped(place):
    """A node of isolated = "stop" that is cut from Redis closes its connections and takes none; its rooms go on at another
    node alone, and who comes back there finds the others."""
    _, (a, b, c) = networks(place, isolated="stop")
    ann, ben, bob = join(a, "x", "ann"), join(a, "x", "ben"), join(b, "x", "bob")
    carries(ann, bob, "before")
    time.sleep(0.5)
    a.rules(OUT, IN)
    began = time.time()
    assert closed(ann, 30) == 1013 and closed(ben, 30) == 1013
    stopped = time.time() - began
    # After the lease less two seconds, and a second.
    assert stopped < LEASE + 5, stopped
    assert not a.is_ready()
    try:
        a.client()
    except (AssertionError, OSError):
        pass
    else:
        raise AssertionError("a newcomer waits at a node that has stopped")
    assert closed(bob, 40) == 1012
    bob, ann = resume(b, bob), resume(c, ann)
    carries(ann, bob, "at another home")
    took = time.time() - began
    assert took < LEASE + 15, took
    a.rules()
    wait(a.is_ready, "it serves again")
    ben = resume(a, ben)
    carries(ben, bob, "together")
    ann.say(type="list", id="l")
    peers = {peer["identity"]: peer["connection"] for peer in of(ann, "peers")["peers"]}
    assert peers == {"ben": "online", "bob": "online"}, peers
    print("     stopped after %.1f s, taken over after %.1f s" % (stopped, took))
    return time.time() - began


@test("network")
def packets_are_lost(place):
    """One packet of twenty between each node and Redis is lost: all arrives, once and in order."""
    _, (a, b, c) = networks(place)
    lossy = "%s numgen random mod 100 < 5 drop"
    for node in (a, b, c):
        node.rules(("output", lossy % "tcp dport 6379"), ("input", lossy % "tcp sport 6379"))
    ann, bob, cat = join(a, "x", "ann"), join(b, "x", "bob"), join(c, "x", "cat")
    began = time.time()
    for number in range(100):
        bob.say(type="message", content=number, id="n%d" % number)
        time.sleep(0.02)
    for client in (ann, cat):
        got = [of(client, "message", patience=30)["content"] for _ in range(100)]
        assert got == list(range(100)), got
    stays(ann, bob, cat)
    return time.time() - began


if __name__ == "__main__":
    run_each(prepare_networks if GROUP == "network" else None)
