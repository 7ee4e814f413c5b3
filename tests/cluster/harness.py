"""A Redis and nodes of callbox over it, on loopback; what their clients do; a backend that takes their events."""

import http.server
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "handover"))
from websocket import WebSocket

BIN = sys.argv[1]
# What is started ends with this program, however that ends.
BOUND = ["setpriv", "--pdeathsig", "KILL"]
ADMIN = "admin-token-of-the-suite-0123456789"


class Redis:
    def __init__(self, folder, words=("--port", "0")):
        self.folder, self.socket, self.process = folder, os.path.join(folder, "redis.sock"), None
        self.words = list(words)
        self.start()

    def start(self):
        # It saves when it is told to end.
        self.process = subprocess.Popen(
            BOUND + ["redis-server", "--unixsocket", self.socket, "--dir", self.folder]
            + ["--save", "3600 1000", "--daemonize", "no"] + self.words,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait(lambda: self.ask("PING") == "PONG", "Redis starts")

    def ask(self, *words):
        done = subprocess.run(
            ["redis-cli", "-s", self.socket] + list(words), capture_output=True, text=True
        )
        return done.stdout.strip()

    def end(self, keeps=False):
        if keeps:
            self.ask("SAVE")
        self.process.kill()
        self.process.wait()
        if not keeps:
            for name in os.listdir(self.folder):
                if name.endswith(".rdb"):
                    os.remove(os.path.join(self.folder, name))


class Backend:
    """Takes the events of all nodes."""

    def __init__(self):
        self.events = events = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                events.extend(json.loads(body)["events"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d/" % server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()


class Node:
    # The words before the program, for one in a network of its own.
    PREFIX = []

    def __init__(self, name, redis, backend=None, window="60s", turn="0123456789abcdef0123456789abcdef", **cluster):
        self.folder = tempfile.mkdtemp(prefix="callbox-node-")
        self.name, self.process = name, None
        url = getattr(redis, "url", None) or "unix:" + redis.socket
        keys = {"redis": url, "secret": "s" * 32, "node": name, "lease": "6s"}
        keys.update(cluster)
        self.config = os.path.join(self.folder, "callbox.toml")
        self.backend, self.window, self.turn, self.keys = backend, window, turn, keys
        self.configure()
        try:
            self.start()
        except BaseException:
            self.remove()
            raise

    def configure(self, **cluster):
        """Writes the configuration, with other keys of `cluster` from its next start on."""
        self.keys.update(cluster)
        with open(self.config, "w") as file:
            file.write('[http]\nlisten = ["127.0.0.1:0"]\n[auth]\nadmin_token = "%s"\n' % ADMIN)
            file.write('[turn]\nsecrets = ["%s"]\n' % self.turn)
            file.write('udp = ["127.0.0.1:0"]\ntcp = []\nworkers = 1\n')
            file.write('[signal]\nresume_window = "%s"\n' % self.window)
            file.write('[drain]\ngrace = "5s"\n[cluster]\n')
            for key, value in self.keys.items():
                file.write("%s = %s\n" % (key, json.dumps(value)))
            if self.backend:
                url, secret = self.backend.url, "h" * 32
                file.write('[hooks]\nurl = "%s"\nsecret = "%s"\nallow_private = true\n' % (url, secret))

    def start(self, ready=True):
        self.log = open(os.path.join(self.folder, "log"), "ab")
        self.process = subprocess.Popen(
            BOUND + self.PREFIX + [BIN, "serve", "--config", self.config], stdout=subprocess.PIPE, stderr=self.log
        )
        text = b""
        while not re.search(rb"127\.0\.0\.1:(\d+)", text):
            line = self.process.stdout.readline()
            if not line:
                raise AssertionError("%s ended: %s" % (self.name, self.said()))
            text += line
        self.port = int(re.search(rb"(?:127\.0\.0\.1|localhost):(\d+)", text).group(1))
        if ready:
            wait(self.is_ready, "%s is ready" % self.name)

    def said(self):
        with open(os.path.join(self.folder, "log")) as file:
            return file.read()

    def get(self, path, method="GET"):
        request = urllib.request.Request("http://127.0.0.1:%d%s" % (self.port, path), method=method)
        request.add_header("Authorization", "Bearer " + ADMIN)
        with urllib.request.urlopen(request, timeout=5) as answer:
            text = answer.read().decode()
            return json.loads(text) if text.startswith(("{", "[")) else text

    def is_ready(self):
        try:
            self.get("/readyz")
            return True
        except OSError:
            return False

    def metric(self, name):
        """The value, or the sum over all labels."""
        found = re.findall(r"^callbox_%s(?:\{.*\})? (\S+)$" % re.escape(name), self.get("/metrics"), re.M)
        assert found, "no metric " + name
        return sum(map(float, found))

    def client(self):
        return WebSocket(("127.0.0.1", self.port))

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        if how in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(timeout=30)

    def remove(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def carry(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def balance(listener, nodes):
    """Each connection goes to the next node that takes it."""
    turns = itertools.cycle(nodes)
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        for node in itertools.islice(turns, len(nodes)):
            try:
                server = socket.create_connection(("127.0.0.1", node.port))
            except OSError:
                continue
            for ends in ((client, server), (server, client)):
                threading.Thread(target=carry, args=ends, daemon=True).start()
            break
        else:
            client.close()


def wait(done, what, patience=30):
    deadline = time.time() + patience
    while time.time() < deadline:
        if done():
            return
        time.sleep(0.05)
    raise AssertionError("never: " + what)


def of(client, kind, test=lambda message: True, patience=20):
    """The next message of that type that nobody has taken."""
    deadline = time.time() + patience
    while time.time() < deadline:
        for index, message in enumerate(client.seen):
            if message.get("type") == kind and test(message):
                return client.seen.pop(index)
        if client.closed:
            break
        client.read(0.1)
    raise AssertionError("no %s but %s, closed with %s" % (kind, client.seen[-5:], client.closed))


def join(node, room, identity=None, **fields):
    client = node.client()
    more = {"identity": identity} if identity else {}
    client.say(type="join", roomId=room, id="j", **more, **fields)
    client.joined = of(client, "joined")
    client.peer = client.joined["peerId"]
    return client


def enters(node, room, identity, patience=20):
    """As join, and again where the node says so (1013): as clients do."""
    deadline = time.time() + patience
    while True:
        try:
            return join(node, room, identity)
        except AssertionError as error:
            if "closed with 1013" not in str(error) or time.time() > deadline:
                raise
            time.sleep(0.2)


def closed(client, patience=20):
    deadline = time.time() + patience
    while not client.closed and time.time() < deadline:
        client.read(0.1)
    assert client.closed, "the connection did not end"
    return client.closed


def resume(node, before, patience=30):
    """Comes back as a client does: again and again while it is told to try later."""
    deadline = time.time() + patience
    while time.time() < deadline:
        try:
            client = node.client()
            client.say(type="resume", resumeToken=before.joined["resumeToken"], seq=before.seq, id="r")
            client.resumed = of(client, "resumed", patience=8)
            client.joined = client.resumed
            client.peer = before.peer
            return client
        except (AssertionError, OSError) as error:
            assert "resume-failed" not in str(error), error
            time.sleep(0.3)
    raise AssertionError("never resumed")


def carries(sender, receiver, text):
    sender.say(type="message", content=text, id=text)
    of(receiver, "message", lambda message: message["content"] == text)
    of(sender, "ack", lambda message: message.get("id") == text)


def run_in_turn(tests, only, start):
    """The tests, one after the other, over three nodes that `start` makes over one Redis; ends with 1 at the first
    that fails."""
    folder = tempfile.mkdtemp(prefix="callbox-redis-")
    redis, nodes, failed = Redis(folder), [], False
    try:
        nodes = start(redis)
        for function in tests:
            if only and function.__name__ not in only:
                continue
            began = time.time()
            try:
                took = function(redis, *nodes)
                print("ok   %-30s %s" % (function.__name__, "%.1f s" % took if took else ""), flush=True)
            except Exception as error:
                print("FAIL %-30s after %.1f s: %r" % (function.__name__, time.time() - began, error))
                show(nodes)
                failed = True
                break
    finally:
        for node in nodes:
            if node.process.poll() is None:
                node.process.send_signal(signal.SIGCONT)
            node.remove()
        redis.end()
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if failed else 0)


def show(nodes):
    """What nodes say of themselves, once a test has failed."""
    for node in nodes:
        if node.process.poll() is None and node.is_ready():
            lines = node.get("/metrics").splitlines()
            print("\n".join(line for line in lines if line.startswith("callbox_cluster")))
        print("--- %s\n%s" % (node.name, node.said()[-3000:]))
