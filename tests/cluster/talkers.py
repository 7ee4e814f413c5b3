"""Clients that talk in a room, come back as good clients do, and check all that they get."""

import collections
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "handover"))
from websocket import WebSocket

# How long a node may say nothing to a request before its client goes elsewhere.
PATIENCE = 8
# Requests without an answer, at most: the server remembers 64.
MAX_PENDING = 32
# What is said under an id that the server has answered with one of these was not taken.
LATER = ("rate-limited", "draining")


class Wire(WebSocket):
    """A connection that gives up on a node that does not move."""

    def __init__(self, address):
        super().__init__(address, 3)

    def frame(self, opcode, payload):
        self.socket.settimeout(3)
        super().frame(opcode, payload)

    def cut(self):
        self.socket.close()


class Talker(threading.Thread):
    """One client. The main thread reads its fields, and says what it wants by `todo`."""

    def __init__(self, world, name, room, seed):
        super().__init__(daemon=True)
        self.world, self.name, self.room = world, name, room
        self.random = random.Random(seed)
        self.trace = collections.deque(maxlen=80)
        self.todo = collections.deque()
        self.wire = self.node = None
        self.last_read = self.next_at = 0.0
        # The worst time that something has waited for its answer, and since when this client is without a session.
        self.worst, self.out_since = 0.0, time.time()
        self.wants_other = None
        self.no_session()

    def no_session(self):
        self.is_in = False
        self.peer = self.token = None
        self.began = self.gap_at = 0.0
        self.seq, self.seq_free = 0, False
        # What was said: number → when for the first time; those with an answer.
        self.number, self.gaps = 0, 0
        self.said, self.taken = {}, set()
        self.pending = collections.OrderedDict()
        # What has come: sender → the last (gaps of the sender, number), all numbers since the last look.
        self.last, self.got = {}, collections.defaultdict(set)
        self.peers = {}
        self.mark, self.probes = 0, {}
        self.role = None
        self.listed = None

    def note(self, text):
        self.trace.append("%.3f %s" % (time.time() - self.world.began, text))

    def wrong(self, text):
        self.note("WRONG " + text)
        self.world.wrong("%s in %s: %s" % (self.name, self.room, text), self)

    def run(self):
        while not self.world.over:
            try:
                if self.wire is None:
                    self.connect()
                else:
                    self.turn()
            except (OSError, ConnectionError) as error:
                self.drop(repr(error))
            except Exception as error:
                self.wrong("fails: %r" % error)
                self.drop(repr(error))
                time.sleep(1)
        self.drop("the end")

    def drop(self, why, pause=0.2):
        if self.wire:
            self.note("is cut off: %s" % why)
            self.wire.cut()
        self.wire, self.is_in = None, False
        self.out_since = self.out_since or time.time()
        if not self.world.over:
            time.sleep(pause * (0.5 + self.random.random()))

    def connect(self):
        self.node = self.random.choice(self.world.nodes)
        self.last_read = time.time()
        self.wire = Wire(("127.0.0.1", self.node.port))
        how = "resume" if self.token else "join"
        self.note("%s through %s" % (how, self.node.name))
        if self.token:
            self.wire.say(type="resume", id="in", resumeToken=self.token, seq=self.seq)
        else:
            self.wire.say(type="join", id="in", roomId=self.room, identity=self.name)
        until = time.time() + PATIENCE
        while not self.is_in and self.wire and time.time() < until:
            self.wire.read(0.2)
            self.read_all()
        if self.wire and not self.is_in:
            self.drop("no answer to %s" % how)

    def turn(self):
        self.wire.read(0.1)
        if not self.read_all():
            return
        now = time.time()
        for _ in range(len(self.todo)):
            if not self.is_in:
                return
            self.todo.popleft()(self)
        leaves = any(fields["type"] == "leave" for fields, _ in self.pending.values())
        ready = self.is_in and not self.world.quiet and not leaves
        if ready and now >= self.next_at and len(self.pending) < MAX_PENDING:
            self.next_at = now + 0.2 + self.random.random() * 0.6
            if self.random.random() < 0.1:
                self.mark += 1
                self.ask(type="state", state={"mark": self.mark})
            else:
                self.talk()
        oldest = next(iter(self.pending.values()), None)
        if oldest and now - max(oldest[1], self.last_read) > PATIENCE:
            self.drop("%s is silent" % self.node.name)

    def talk(self, **content):
        self.number += 1
        self.said[self.number] = time.time()
        self.ask(type="message", number=self.number, content=content)

    def ask(self, **fields):
        number = fields.get("number")
        ident = "m%d" % number if number else "%s%d-%f" % (fields["type"], self.mark, time.time())
        self.pending[ident] = (fields, time.time())
        self.send(ident)

    def send(self, ident):
        fields = dict(self.pending[ident][0])
        number = fields.pop("number", None)
        if number:
            fields["content"] = dict(fields["content"], n=number, g=self.gaps)
        self.wire.say(id=ident, **fields)

    def read_all(self):
        """Takes what has come; returns whether the connection is there still."""
        while self.wire and self.wire.seen:
            self.last_read = time.time()
            self.take(self.wire.seen.pop(0))
        if self.wire and self.wire.closed:
            code = self.wire.closed
            self.world.closes[code] += 1
            if code == 4002 and self.token and self.peer in self.world.told:
                # Kicked while the connection was away: the answer to `resume` is this code.
                self.note("was kicked")
                self.world.kicked(self)
                self.no_session()
            elif code == 4002 or code in (4001, 4003, 4004, 4006, 4007, 1002, 1007, 1008, 1009):
                if code != 4002 or self.token:
                    self.wrong("is closed with %s" % code)
            self.drop("closed with %s" % code, 0.8 if code == 1013 else 0.2)
        return self.wire is not None

    def take(self, message):
        kind = message["type"]
        ident = message.get("id")
        if ident == "in":
            return self.entered(message)
        if "seq" in message:
            seq = message["seq"]
            if seq <= self.seq or (seq != self.seq + 1 and not self.seq_free):
                self.wrong("gets seq %d after %d: %s" % (seq, self.seq, message))
            self.seq, self.seq_free = seq, False
        if ident in self.pending and kind != "rate-limited":
            return self.answered(ident, message)
        if kind == "message":
            self.received(message)
        elif kind == "peer-joined":
            self.peers[message["peerId"]] = dict(message["peer"])
        elif kind == "peer-left":
            self.peers.pop(message["peerId"], None)
            self.note("%s left: %s" % (message["identity"], message["reason"]))
        elif kind == "peer-state" and message["peerId"] == self.peer:
            self.role = message.get("role", self.role)
        elif kind == "peer-state":
            known = self.peers.setdefault(message["peerId"], {"peerId": message["peerId"]})
            for field in ("state", "role", "connection", "identity"):
                if field in message:
                    known[field] = message[field]
        elif kind == "kicked":
            self.note("is kicked")
            self.world.kicked(self)
            self.no_session()
        elif kind == "peers":
            self.listed = message["peers"]
        elif kind == "error":
            self.wrong("gets %s" % message)

    def entered(self, message):
        kind, now = message["type"], time.time()
        if kind == "error":
            code = message["code"]
            if code == "resume-failed" and self.token:
                self.world.lost(self)
                self.note("has lost its session")
                self.waited(now)
                self.no_session()
                return self.drop(code, 0)
            if code not in LATER:
                self.wrong("may not enter: %s" % message)
            return self.drop(code, message.get("retryAfter", 1000) / 1000)
        if kind == "joined":
            self.seq, self.began = message["seq"], now
            self.peer = message["peerId"]
            self.note("is %s" % self.peer)
        elif kind == "resumed":
            if message["peerId"] != self.peer:
                self.wrong("resumes as %s, not %s" % (message["peerId"], self.peer))
            self.note("resumed, gap: %s, replayed: %d" % (message["gap"], message["replayed"]))
            if message["gap"]:
                self.gap_at, self.seq_free = now, True
                self.gaps += 1
                self.world.gapped(self)
        self.token = message["resumeToken"]
        self.role = message["role"]
        self.peers = {peer["peerId"]: dict(peer) for peer in message["peers"]}
        self.is_in = True
        self.waited(now)
        # What has no answer goes again, in order; what a gap may have swallowed of oneself, too.
        for ident in list(self.pending):
            self.send(ident)
        if self.gaps and self.mark and kind == "resumed" and message["gap"]:
            self.ask(type="state", state={"mark": self.mark})

    def waited(self, now):
        if self.out_since:
            self.worst = max(self.worst, now - self.out_since)
            self.out_since = None

    def answered(self, ident, message):
        fields, first = self.pending[ident]
        if message["type"] == "error" and message["code"] in LATER:
            # It was not taken, and is not said again, as others are behind it.
            self.world.refused += 1
            self.said.pop(fields.get("number"), None)
            del self.pending[ident]
            return
        del self.pending[ident]
        self.worst = max(self.worst, time.time() - first)
        if message["type"] == "error":
            return self.wrong("%s is answered with %s" % (fields, message))
        if "number" in fields:
            self.taken.add(fields["number"])
            self.world.sent += 1
        elif fields["type"] == "list":
            self.listed = message["peers"]
        elif fields["type"] == "leave":
            self.no_session()
            self.drop("leave")

    def received(self, message):
        sender, content = message["from"], message["content"]
        which = (content["g"], content["n"])
        if which <= self.last.get(sender, (0, 0)):
            what = "twice" if content["n"] in self.got[sender] else "out of order"
            self.wrong("gets %s of %s %s, after %s" % (which, message["fromIdentity"], what, self.last[sender]))
        self.last[sender] = which
        self.got[sender].add(content["n"])
        self.world.received += 1
        if "probe" in content:
            self.probes[sender] = content["probe"]
