"""What tests with a Redis, nodes or a network of their own start, and the run of a group of them:
FILE PROGRAM GROUP [TEST…]."""

import os
import shutil
import signal
import socket
import sys
import tempfile
import time

from harness import Node, Redis, closed, join, resume, show, wait

GROUP, ONLY = sys.argv[2], sys.argv[3:]
LEASE = 6
TESTS = []


def test(group):
    def add(function):
        if group == GROUP:
            TESTS.append(function)
        return function

    return add


class Place:
    """What one test has started, and ends with it."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="callbox-place-")
        self.nodes, self.stores, self.parts = [], [], []

    def path(self, name):
        return os.path.join(self.folder, name)

    def redis(self, name="redis", words=("--port", "0")):
        os.mkdir(self.path(name))
        redis = Redis(self.path(name), words)
        self.stores.append(redis)
        self.parts.append(lambda: end(redis.process))
        return redis

    def node(self, name, redis, kind=Node, **keys):
        node = kind(name, redis, lease="%ds" % LEASE, **keys)
        self.nodes.append(node)
        return node

    def three(self, redis, **keys):
        nodes = [self.node(name, redis, **keys) for name in "abc"]
        for node in nodes:
            wait(lambda: node.metric("cluster_nodes") == 3, "%s knows three nodes" % node.name)
        return nodes

    def end(self):
        for node in self.nodes:
            if node.process.poll() is None:
                node.process.send_signal(signal.SIGCONT)
            node.remove()
        for part in reversed(self.parts):
            part()
        shutil.rmtree(self.folder, ignore_errors=True)


class By:
    """A Redis by that address."""

    def __init__(self, url):
        self.url = url


def end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def stays(*clients):
    """Nobody was closed."""
    for client in clients:
        client.read(0.05)
        assert not client.closed, "closed with %s" % client.closed


def anew(node, room, identity, patience=12):
    """Joins as a client does: again while it is told to try later."""
    deadline = time.time() + patience
    while True:
        try:
            return join(node, room, identity)
        except AssertionError as error:
            assert "closed with 1013" in str(error) and time.time() < deadline, error
            time.sleep(0.3)


def back(client, node):
    """The client, through that node where its connection has ended; nothing was lost."""
    deadline = time.time() + 3
    while time.time() < deadline and not client.closed:
        client.read(0.1)
    if not client.closed:
        return client
    assert client.closed in (1012, 1013), client.closed
    again = resume(node, client)
    assert again.resumed["gap"] is False, again.resumed
    return again


def run_each(prepare=None):
    """The tests of the group, each in a place of its own; ends with 1 at the first that fails."""
    if prepare:
        prepare()
    for function in TESTS:
        if ONLY and function.__name__ not in ONLY:
            continue
        began, place = time.time(), Place()
        try:
            took = function(place)
            print("ok   %-30s %s" % (function.__name__, "%.1f s" % took if took else ""), flush=True)
        except Exception as error:
            print("FAIL %-30s after %.1f s: %r" % (function.__name__, time.time() - began, error))
            for redis in place.stores:
                for key in redis.ask("KEYS", "*").split():
                    if redis.ask("TYPE", key) == "hash":
                        fields = redis.ask("HKEYS", key).split()
                        print("   %s: %s, %s" % (key, fields, redis.ask("HMGET", key, "o", "e").split()))
            show(place.nodes)
            sys.stdout.flush()
            place.end()
            sys.exit(1)
        place.end()
