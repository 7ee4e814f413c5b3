"""Pairs that talk: each member is on a node of its own choice, numbers what it says, comes back as a client
does, and repeats under the same id what was not answered. Counts what is lost, repeated and told as a gap."""

import selectors
import socket
import time

from harness import join


class Talker:
    """One member of a pair, over whichever node it is connected to."""

    def __init__(self, nodes, room, name, index):
        self.nodes, self.room, self.name, self.next = nodes, room, name, index
        self.client = join(self.turn(), room, name)
        self.token = self.client.joined["resumeToken"]
        self.said, self.unanswered, self.got = 0, {}, []
        self.gaps = self.closes = self.left = 0
        self.codes, self.waits, self.quiet = [], 0, False
        self.taken = len(self.client.seen)
        self.talks = True

    def turn(self):
        """The next node that is there: what a balancer does."""
        for _ in range(len(self.nodes)):
            self.next += 1
            node = self.nodes[self.next % len(self.nodes)]
            if node.serves:
                return node
        raise AssertionError("no node serves")

    def speak(self):
        if self.client is None or not self.talks:
            return
        self.said += 1
        self.unanswered[self.said] = time.time()
        self.send(self.said)

    def send(self, number):
        try:
            # The socket does not block: what does not fit is sent again after the resume.
            self.client.say(type="message", content=[self.name, number], id="m%d" % number)
        except OSError:
            self.client.closed = self.client.closed or "end"

    def look(self):
        """Takes what has come."""
        client = self.client
        try:
            while client.read(0):
                if client.closed:
                    break
        except OSError:
            client.closed = client.closed or "end"
        for message in client.seen:
            kind = message["type"]
            if kind == "message":
                self.got.append(message["content"][1])
            elif kind == "ack" and str(message.get("id", "")).startswith("m"):
                self.unanswered.pop(int(message["id"][1:]), None)
            elif kind == "peer-left":
                self.left += 1
            elif kind == "resumed":
                self.gaps += bool(message["gap"])
                self.talks, self.token = True, message["resumeToken"]
                for number in sorted(self.unanswered):
                    self.send(number)
            elif kind == "error" and message.get("id") == "r":
                assert message["code"] != "resume-failed", message
                self.waits = time.time() + 0.3
                client.closed = client.closed or "refused"
        client.seen.clear()
        if client.closed:
            self.seq = client.seq
            self.closes += 1
            self.codes.append(client.closed)
            client.socket.close()
            self.client = None
            if client.closed == 1013:
                self.waits = time.time() + 0.3

    def come_back(self):
        if time.time() < self.waits:
            return False
        try:
            client = self.turn().client()
        except (OSError, AssertionError):
            self.waits = time.time() + 0.2
            return False
        client.seq, self.talks = self.seq, False
        client.say(type="resume", resumeToken=self.token, seq=self.seq, id="r")
        self.client = client
        return True


class Pairs:
    def __init__(self, nodes, count, rate, room):
        for node in nodes:
            node.serves = True
        self.nodes, self.rate = nodes, rate
        self.all, self.poll = [], selectors.DefaultSelector()
        for index in range(count):
            for side in range(2):
                talker = Talker(nodes, "%s-%d" % (room, index), "%d-%d" % (index, side), index + side)
                self.all.append(talker)
                self.watch(talker)
        self.at = 0

    def watch(self, talker):
        talker.watched = talker.client.socket
        self.poll.register(talker.watched, selectors.EVENT_READ, talker)

    def talk(self, seconds, done=lambda: False):
        """Everybody talks for so long, or until something is done."""
        ends, each = time.time() + seconds, 1.0 / (self.rate * len(self.all))
        due = time.time()
        while time.time() < ends and not done():
            now = time.time()
            # A machine that is slow talks less, not in bursts.
            due = max(due, now - 0.2)
            while due <= now:
                self.all[self.at % len(self.all)].speak()
                self.at += 1
                due += each
            self.turn(max(0, due - time.time()))

    def turn(self, wait):
        for key, _ in self.poll.select(min(wait, 0.05)):
            talker = key.data
            if talker.client is not None:
                talker.look()
            if talker.client is None:
                self.poll.unregister(key.fileobj)
                talker.watched = None
        for talker in self.all:
            if talker.client is not None and talker.client.closed:
                talker.look()
                self.poll.unregister(talker.watched)
            if talker.client is None and talker.come_back():
                self.watch(talker)

    def settle(self, patience=60):
        """Nobody speaks any more, and everything arrives."""
        deadline = time.time() + patience
        while time.time() < deadline:
            self.turn(0.05)
            if all(t.client and not t.unanswered and t.talks for t in self.all) and not self.missing():
                return
        raise AssertionError("unanswered or not arrived: %s" % self.summary())

    def missing(self):
        lost = 0
        for index, talker in enumerate(self.all):
            other = self.all[index ^ 1]
            lost += len(set(range(1, talker.said + 1)) - set(other.got))
        return lost

    def summary(self):
        twice = sum(len(t.got) - len(set(t.got)) for t in self.all)
        unsorted = sum(a > b for t in self.all for a, b in zip(t.got, t.got[1:]))
        return {
            "said": sum(t.said for t in self.all),
            "lost": self.missing(),
            "twice": twice,
            "unsorted": unsorted,
            "gaps": sum(t.gaps for t in self.all),
            "peer-left": sum(t.left for t in self.all),
            "closes": sum(t.closes for t in self.all),
            "codes": sorted({str(code) for t in self.all for code in t.codes}),
        }

    def end(self):
        for talker in self.all:
            if talker.client:
                talker.client.socket.close()
        self.poll.close()
