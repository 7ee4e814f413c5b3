"""Seeded random faults over real nodes, one Redis and clients that talk in rooms across the nodes.

tests/cluster/faults [MINUTES] [SEED]   (5 minutes; a seed of the clock)

What clients see is checked all the time: no frame twice, the order of each sender, numbers without a hole; and after
each fault, once it is calm: what was answered has come unless a gap was announced, everybody sees the same members,
who was kicked stays out, nodes and Redis hold no more than there is. Ends with 1 after a violation."""

import collections
import os
import queue
import random
import shutil
import signal
import sys
import tempfile
import threading
import time

from harness import Node, Redis, wait
from proxy import HOLD, HOLD_TO_NODE, HOLD_TO_REDIS, OPEN, REFUSE, Proxy
from talkers import Talker, Wire

ROOMS, IN_A_ROOM = 4, 4
LEASE = 6
WINDOW = 40
# How long all clients may take to be back after the end of a fault, and what is left of the lost to go.
RECOVERY, AGREEMENT = 60, WINDOW + 15
# What a node may hold, once it is calm.
MOST_MEMORY, MOST_DESCRIPTORS = 192 << 20, 160
# So many violations, and the run ends.
ENOUGH = 10


class World:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.began = time.time()
        self.over, self.quiet = False, True
        self.lock = threading.Lock()
        self.violations = []
        self.refused = self.sent = self.received = self.kicks = self.probe = 0
        self.gaps, self.losses = collections.Counter(), collections.Counter()
        self.closes = collections.Counter()
        self.fault = "-"
        # What of the faults at hand is allowed: gaps, and sessions that are lost.
        self.may_gap = self.may_lose = True
        self.told = set()
        self.kicked_tokens = []
        self.memory = self.descriptors = 0
        self.agreement = 0.0
        self.table = collections.defaultdict(list)
        self.nodes, self.proxies, self.talkers = [], {}, []
        self.redis = None
        self.starts = queue.Queue()
        # Nodes of which a fault has one in its hands.
        self.busy = set()
        self.folder = tempfile.mkdtemp(prefix="callbox-faults-")

    def say(self, text):
        print("%7.1f  %s" % (time.time() - self.began, text), flush=True)

    def wrong(self, text, talker=None):
        with self.lock:
            self.violations.append(text)
            self.say("VIOLATION (%s) %s" % (self.fault, text))
            if talker:
                for line in list(talker.trace)[-25:]:
                    print("           %s %s" % (talker.name, line), flush=True)

    def gapped(self, talker):
        self.gaps[self.fault] += 1
        if not self.may_gap:
            self.wrong("%s has a gap, where nothing may be lost" % talker.name, talker)

    def lost(self, talker):
        if talker.peer in self.told:
            return
        self.losses[self.fault] += 1
        if not self.may_lose:
            self.wrong("%s has lost its session, where nothing may be lost" % talker.name, talker)

    def kicked(self, talker):
        self.told.add(talker.peer)
        self.kicked_tokens.append([talker.name, talker.token, talker.seq, 0])

    # -- what there is

    def start(self):
        self.redis = Redis(os.path.join(self.folder))
        for name in "abc":
            proxy = Proxy(os.path.join(self.folder, name + ".sock"), self.redis.socket)
            self.proxies[name] = proxy
            self.nodes.append(
                Node(name, proxy, lease="%ds" % LEASE, window="%ds" % WINDOW)
            )
        seeds = random.Random(self.random.random())
        for index in range(ROOMS * IN_A_ROOM):
            room = "room-%d" % (index % ROOMS)
            self.talkers.append(Talker(self, "t%d" % index, room, seeds.random()))
        for talker in self.talkers:
            talker.start()

    def end(self):
        self.over = True
        for talker in self.talkers:
            talker.join(timeout=10) if talker.ident else None
        for node in self.nodes:
            if node.process.poll() is None:
                node.process.send_signal(signal.SIGCONT)
                if self.violations:
                    node.process.kill()
                    node.process.wait()
            if self.violations:
                print("kept: %s (%s)" % (node.folder, node.name))
            else:
                node.remove()
        for proxy in self.proxies.values():
            proxy.end()
        if self.redis:
            if self.redis.process.poll() is None:
                self.redis.process.send_signal(signal.SIGCONT)
                self.redis.process.kill()
                self.redis.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- faults: each returns when it has ended

    def sleep(self, low, high):
        time.sleep(self.random.uniform(low, high))

    def some(self, count=1):
        """Nodes that no other fault has."""
        free = [node for node in self.nodes if node not in self.busy]
        chosen = self.random.sample(free, min(count, len(free)))
        self.busy.update(chosen)
        return chosen

    def begin(self, start):
        """Has the main thread start a process: what is started ends with the thread that has started it."""
        done = []
        self.starts.put((start, done))
        while not done:
            time.sleep(0.02)
        if done[0]:
            raise done[0]

    def serve_starts(self):
        while not self.starts.empty():
            start, done = self.starts.get()
            try:
                start()
                done.append(None)
            except Exception as error:
                done.append(error)

    def kill(self):
        for node in self.some():
            self.say("kill -9 of %s" % node.name)
            node.kill()
            self.sleep(0, 15)
            self.begin(lambda: node.start(ready=False))

    def kill_two(self):
        nodes = self.some(2)
        for node in nodes:
            self.say("kill -9 of %s" % node.name)
            node.kill()
            self.sleep(0, 0.5)
        self.sleep(0, 12)
        for node in nodes:
            self.begin(lambda: node.start(ready=False))

    def freeze(self, low, high):
        pause = self.random.uniform(low, high)
        for node in self.some():
            self.say("SIGSTOP of %s for %.1f s" % (node.name, pause))
            node.kill(signal.SIGSTOP)
            time.sleep(pause)
            node.kill(signal.SIGCONT)

    def drain(self, count=1):
        for node in self.some(count):
            self.say("SIGTERM of %s" % node.name)
            node.process.send_signal(signal.SIGTERM)
            node.process.wait(timeout=60)
            self.sleep(0, 2)
            self.begin(lambda: node.start(ready=False))
            wait(node.is_ready, "%s is ready" % node.name, 60)

    def rolling(self):
        self.drain(3)

    def redis_restart(self):
        self.say("Redis restarts with its data")
        self.redis.process.terminate()
        self.redis.process.wait()
        self.sleep(0, 3)
        self.begin(self.redis.start)

    def redis_old(self):
        self.say("Redis loses its last second")
        self.redis.ask("SAVE")
        self.sleep(0.5, 1.5)
        self.redis.process.kill()
        self.redis.process.wait()
        self.sleep(0, 3)
        self.begin(self.redis.start)

    def redis_empty(self):
        self.say("Redis restarts empty")
        self.redis.end(keeps=False)
        self.sleep(0, 3)
        self.begin(self.redis.start)

    def redis_frozen(self):
        pause = self.random.uniform(2, 20)
        self.say("SIGSTOP of Redis for %.1f s" % pause)
        self.redis.process.send_signal(signal.SIGSTOP)
        time.sleep(pause)
        self.redis.process.send_signal(signal.SIGCONT)

    def client_kill(self):
        for _ in range(self.random.randint(1, 3)):
            kind = self.random.choice(["normal", "pubsub"])
            self.say("CLIENT KILL TYPE %s" % kind)
            self.redis.ask("CLIENT", "KILL", "TYPE", kind)
            self.sleep(0, 1)

    def client_pause(self):
        ms, kind = self.random.randint(500, 9000), self.random.choice(["ALL", "WRITE"])
        self.say("CLIENT PAUSE %d %s" % (ms, kind))
        self.redis.ask("CLIENT", "PAUSE", str(ms), kind)
        time.sleep(ms / 1000)

    def cut(self, low, high):
        pause = self.random.uniform(low, high)
        mode = self.random.choice([REFUSE, HOLD, HOLD_TO_NODE, HOLD_TO_REDIS])
        for node in self.some():
            self.say("%s is cut from Redis (%s) for %.1f s" % (node.name, mode, pause))
            self.proxies[node.name].set(mode)
            time.sleep(pause)
            self.proxies[node.name].set(OPEN)

    def clients_cut(self):
        some = self.random.sample(self.talkers, self.random.randint(1, len(self.talkers)))
        self.say("%d clients are cut off" % len(some))
        for talker in some:
            talker.todo.append(lambda talker: talker.drop("a cut"))
        self.sleep(0.2, 3)

    def churn(self):
        some = self.random.sample(self.talkers, self.random.randint(1, 6))
        self.say("%d clients leave and come again" % len(some))
        for talker in some:
            talker.todo.append(leave)
        self.sleep(0.2, 3)

    def kill_and_redis(self):
        keeps = self.random.random() < 0.5
        nodes = self.some()
        for node in nodes:
            self.say("kill -9 of %s and of Redis, %s" % (node.name, "data kept" if keeps else "nothing kept"))
            node.kill()
        self.redis.end(keeps=keeps)
        self.sleep(0, 5)
        self.begin(self.redis.start)
        self.sleep(0, 3)
        for node in nodes:
            self.begin(lambda: node.start(ready=False))

    # name → weight, what it does, whether sessions may have a gap, whether they may be lost
    FAULTS = {
        "kill -9": (4, kill, True, False),
        "kill -9 of two": (1, kill_two, True, False),
        "frozen briefly": (2, lambda self: self.freeze(0.5, LEASE - 3), False, False),
        "frozen": (3, lambda self: self.freeze(3, 20), True, False),
        "drain": (3, drain, False, False),
        "rolling restart": (1, rolling, False, False),
        "Redis restarts": (2, redis_restart, False, False),
        "Redis loses a second": (2, redis_old, False, False),
        "Redis restarts empty": (2, redis_empty, False, False),
        "Redis frozen": (2, redis_frozen, False, False),
        "CLIENT KILL": (2, client_kill, False, False),
        "CLIENT PAUSE": (2, client_pause, False, False),
        "cut briefly": (2, lambda self: self.cut(0.5, LEASE - 3), False, False),
        "cut from Redis": (3, lambda self: self.cut(3, 20), True, False),
        "clients cut": (2, clients_cut, False, False),
        "clients leave": (1, churn, False, False),
        "node and Redis die": (1, kill_and_redis, True, True),
    }

    def one(self):
        names = list(self.FAULTS)
        weights = [self.FAULTS[name][0] for name in names]
        chosen = self.random.choices(names, weights)
        if self.random.random() < 0.2:
            of_redis = lambda name: "Redis" in name or "CLIENT" in name
            # Redis may lose the end of a room that is given to another node just then: two nodes go on with it,
            # each without what the other has said.
            other = [name for name in names if not (of_redis(name) and of_redis(chosen[0]))
                     and "Redis loses a second" not in (name, chosen[0])]
            if other:
                chosen += self.random.choices(other, [self.FAULTS[name][0] for name in other])
        together = len(chosen) > 1
        self.fault = " + ".join(chosen)
        for talker in self.talkers:
            talker.worst, talker.out_since = 0.0, None
        self.may_gap = together or self.FAULTS[chosen[0]][2]
        self.may_lose = together or self.FAULTS[chosen[0]][3]
        began = time.time()
        threads, failed = [], []

        def do(name):
            try:
                self.FAULTS[name][1](self)
            except Exception as error:
                failed.append("%s fails: %r" % (name, error))

        for name in chosen:
            if together and threads:
                self.sleep(0, 4)
            threads.append(threading.Thread(target=do, args=(name,), daemon=True))
            threads[-1].start()
        while any(thread.is_alive() for thread in threads):
            self.serve_starts()
            time.sleep(0.02)
        self.busy.clear()
        for what in failed:
            self.wrong(what)
        ended = time.time()
        took = self.settle()
        self.checks()
        worst = max(talker.worst for talker in self.talkers)
        kind = "two at once" if together else chosen[0]
        self.table[kind].append((worst, took, ended - began))
        self.say("  calm %.1f s after its end; the longest wait of a client: %.1f s" % (took, worst))
        self.may_gap = self.may_lose = False
        self.fault = "calm"

    # -- calm

    def until(self, done, patience, what, shown=lambda: ""):
        deadline = time.time() + patience
        while not done():
            if time.time() > deadline:
                self.wrong("never: %s %s" % (what, shown()))
                self.stuck()
                raise Stop
            time.sleep(0.05)

    def stuck(self):
        for talker in self.talkers:
            print("  %s in %s: %s at %s, %d pending" % (talker.name, talker.room, "in" if talker.is_in else "out",
                  talker.node and talker.node.name, len(talker.pending)))
            for line in list(talker.trace)[-6:]:
                print("      %s" % line)
        for node in self.nodes:
            print("--- %s\n%s" % (node.name, node.said()[-2000:]))

    def settle(self):
        """Waits until everybody can talk to everybody; returns how long that took."""
        began, self.quiet = time.time(), True
        ready = lambda: all(t.is_in and not t.pending for t in self.talkers)
        out = lambda: [(t.name, "in" if t.is_in else "out", list(t.pending)[:3]) for t in self.talkers
                       if not t.is_in or t.pending]
        self.until(ready, RECOVERY, "all clients are back with all answers:", out)
        self.probe += 1
        number = self.probe
        for talker in self.talkers:
            talker.todo.append(lambda talker: talker.talk(probe=number))

        def received():
            for room in self.rooms().values():
                for one in room:
                    for other in room:
                        if one is not other and one.probes.get(other.peer) != number:
                            return False
            return True

        missing = lambda: [(one.name, other.name) for room in self.rooms().values() for one in room for other in room
                           if one is not other and one.probes.get(other.peer) != number]
        again = time.time() + 15
        while not received():
            # A connection that was cut after the fault's end may take a probe along, with a gap.
            if time.time() > again:
                for sender in {name for _, name in missing()}:
                    talker = next(t for t in self.talkers if t.name == sender)
                    talker.todo.append(lambda talker: talker.talk(probe=number))
                again = time.time() + 15
            if time.time() > began + RECOVERY + 30:
                self.until(received, 0, "everybody gets everybody's probe; missing (receiver, sender):", missing)
            time.sleep(0.02)
        return time.time() - began

    def rooms(self):
        rooms = collections.defaultdict(list)
        for talker in self.talkers:
            rooms[talker.room].append(talker)
        return rooms

    def checks(self):
        self.agree()
        self.complete()
        self.hold()
        self.stay_out()
        self.quiet = False

    def agree(self):
        """Everybody sees the same members, all online, with what they have said of themselves."""
        began, shown = time.time(), False
        deadline = began + AGREEMENT
        while True:
            for talker in self.talkers:
                talker.listed = None
                talker.todo.append(lambda talker: talker.ask(type="list"))
            self.until(lambda: all(t.listed is not None for t in self.talkers), RECOVERY, "lists are answered")
            problems = self.differences()
            if not problems:
                self.agreement = max(self.agreement, time.time() - began)
                return
            if time.time() > began + 5 and not shown:
                shown = True
                self.say("  no agreement after 5 s: %s" % problems[0][0])
            if time.time() > deadline:
                for text, talker in problems[:4]:
                    self.wrong(text, talker)
                return
            time.sleep(0.5)

    def differences(self):
        problems = []
        for room, members in self.rooms().items():
            marks = {t.peer: t.mark for t in members}
            for talker in members:
                for how, peers in (("the list", talker.listed), ("the events", list(talker.peers.values()))):
                    seen = {p["peerId"]: (p.get("connection"), (p.get("state") or {}).get("mark", 0)) for p in peers}
                    due = {peer: ("online", mark) for peer, mark in marks.items() if peer != talker.peer}
                    if seen != due:
                        what = "by %s (%s) there are %s in %s, but there should be %s"
                        problems.append((what % (how, talker.name, seen, room, due), talker))
            if not any(t.role == "host" for t in members):
                problems.append(("%s has no host" % room, members[0]))
        return problems

    def complete(self):
        """What was answered has come, unless the sender or the receiver was told of a gap since."""
        for members in self.rooms().values():
            for sender in members:
                for receiver in members:
                    if sender is receiver:
                        continue
                    got = receiver.got[sender.peer]
                    since = max(receiver.began, receiver.gap_at, sender.gap_at)
                    lost = [n for n in sender.taken if n not in got and sender.said[n] > since]
                    if lost:
                        what = "%s never got %s of %s, and no gap was announced"
                        self.wrong(what % (receiver.name, sorted(lost)[:9], sender.name), receiver)
        for talker in self.talkers:
            for n in talker.taken:
                talker.said.pop(n, None)
            talker.taken.clear()
            talker.got.clear()

    def hold(self):
        """Nodes know each other, and hold no more than there is; neither does Redis."""
        def known():
            try:
                return all(n.metric("cluster_nodes") == 3 and n.metric("cluster_isolated") == 0 for n in self.nodes)
            except (OSError, AttributeError):
                return False

        self.until(known, RECOVERY, "every node knows three")
        members = lambda: sum(
            sum(field.startswith("m:") for field in self.redis.ask("HKEYS", key).split())
            for key in self.redis.ask("KEYS", "callbox:r:*").split()
        )
        count = len(self.talkers)
        self.until(lambda: members() == count, AGREEMENT, "Redis holds %d members:" % count, members)
        for node in self.nodes:
            with open("/proc/%d/statm" % node.process.pid) as file:
                memory = int(file.read().split()[1]) * 4096
            descriptors = len(os.listdir("/proc/%d/fd" % node.process.pid))
            self.memory, self.descriptors = max(self.memory, memory), max(self.descriptors, descriptors)
            if memory > MOST_MEMORY or descriptors > MOST_DESCRIPTORS:
                self.wrong("%s holds %d MiB and %d descriptors" % (node.name, memory >> 20, descriptors))

    def mix(self):
        """Clients and the homes of rooms stay where a fault has left them: some of both move on."""
        for room in self.rooms().values():
            if self.random.random() < 0.4:
                old = [talker.peer for talker in room]
                self.told.update(old)
                for talker in room:
                    talker.todo.append(leave)
                self.until(lambda: all(t.is_in and t.peer not in old for t in room), RECOVERY, "a room begins anew")
            else:
                for talker in room:
                    if self.random.random() < 0.3:
                        talker.todo.append(lambda talker: talker.drop("a cut"))
        self.until(lambda: all(t.is_in for t in self.talkers), RECOVERY, "clients are back")

    def kick(self):
        """A host removes somebody; the victim comes again as somebody else."""
        room = self.random.choice(list(self.rooms().values()))
        hosts = [t for t in room if t.role == "host"]
        victims = [t for t in room if t not in hosts]
        if not hosts or not victims:
            return
        host, victim = self.random.choice(hosts), self.random.choice(victims)
        peer = victim.peer
        self.told.add(peer)
        self.kicks += 1
        host.todo.append(lambda host: host.ask(type="kick", peerId=peer))
        self.until(lambda: victim.peer not in (peer, None) and victim.is_in, RECOVERY,
                   "%s is kicked by %s" % (victim.name, host.name))
        time.sleep(1)

    def stay_out(self):
        """The sessions of who was kicked are gone for good."""
        for entry in list(self.kicked_tokens):
            name, token, seq, times = entry
            node = self.random.choice(self.nodes)

            def refused():
                try:
                    wire = Wire(("127.0.0.1", node.port))
                    wire.say(type="resume", id="in", resumeToken=token, seq=seq)
                    until = time.time() + 6
                    while time.time() < until and not wire.closed:
                        wire.read(0.2)
                        for message in wire.seen:
                            if message["type"] == "resumed":
                                self.wrong("%s was kicked, and resumes at %s" % (name, node.name))
                                return True
                            if message.get("code") == "resume-failed":
                                return True
                    # A home that remembers the kick says so.
                    return wire.closed == 4002
                except OSError:
                    pass
                finally:
                    wire.cut()
                return False

            self.until(refused, 30, "%s, who was kicked, is refused" % name)
            entry[3] += 1
            if entry[3] >= 3:
                self.kicked_tokens.remove(entry)

    def summary(self, seed):
        print("\nseed %d, %.1f minutes, %d clients in %d rooms on 3 nodes, lease %d s" % (
            seed, (time.time() - self.began) / 60, len(self.talkers), ROOMS, LEASE))
        print("%d messages answered, %d received, %d refused for now, %d kicks" % (
            self.sent, self.received, self.refused, self.kicks))
        print("gaps announced: %d, sessions lost: %d, closes: %s" % (
            sum(self.gaps.values()), sum(self.losses.values()),
            ", ".join("%s %d times" % pair for pair in sorted(self.closes.items(), key=str))))
        print("all saw the same members at most %.1f s after all were back" % self.agreement)
        print("a calm node held at most %d MiB and %d descriptors" % (self.memory >> 20, self.descriptors))
        print("%-22s %5s %6s %7s  %s" % ("fault", "times", "gaps", "losses", "worst: a client waits · calm after its end"))
        total = lambda counter, kind: sum(
            n for name, n in counter.items() if name == kind or (kind == "two at once" and " + " in name))
        for kind, rows in sorted(self.table.items()):
            print("%-22s %5d %6d %7d  %.1f s · %.1f s" % (
                kind, len(rows), total(self.gaps, kind), total(self.losses, kind),
                max(row[0] for row in rows), max(row[1] for row in rows)))
        print("%d violations" % len(self.violations))
        for text in self.violations[:ENOUGH]:
            print("  " + text[:400])


def leave(talker):
    if talker.pending:
        return talker.todo.append(leave)
    talker.note("leaves")
    talker.ask(type="leave")


class Stop(Exception):
    """Nothing more can be learned."""


def main():
    words = [word for word in sys.argv[2:]]
    minutes = float(words[0]) if words else 5
    seed = int(words[1]) if len(words) > 1 else int(time.time())
    print("seed %d: tests/cluster/faults %g %d" % (seed, minutes, seed), flush=True)

    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    world = World(seed)
    code = 1
    try:
        world.start()
        world.settle()
        world.checks()
        world.may_gap = world.may_lose = False
        deadline = time.time() + minutes * 60
        while time.time() < deadline and len(world.violations) < ENOUGH:
            world.mix()
            if world.random.random() < 0.3:
                world.kick()
            world.sleep(0.2, 1)
            world.one()
        code = 1 if world.violations else 0
    except Stop:
        pass
    except KeyboardInterrupt:
        print("interrupted")
        code = 1 if world.violations else 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        world.summary(seed)
        world.end()
    sys.exit(code)


if __name__ == "__main__":
    main()
