"""Upgrades a box on loopback while calls go on through it, and looks for anything that is lost.

    tests/handover/upgrade.py BINARY [ALLOCATIONS [SESSIONS]]
"""

import http.client
import http.server
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

import dialects
from call import Call, Flood, need
from turn import Client
from websocket import WebSocket

BINARY = os.path.realpath(sys.argv[1])
SECRET = "a secret that only this test knows"
CONFIG = """
[http]
listen = ["127.0.0.1:0"]
[turn]
udp = ["127.0.0.1:0"]
tcp = ["127.0.0.1:0"]
secrets = ["%s"]
allowed_peers = ["127.0.0.0/8"]
relay_ports = "20000-32000"
user_quota = 100000
ip_quota = 100000
total_quota = 100000
workers = 2
""" % SECRET


def ok(text):
    print("ok ", text, flush=True)


CHECKED = """#!/bin/sh
case "$*" in
*--check-handover*) %s ;;
*) %s ;;
esac
"""


def trusting():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def certificate():
    """A folder with a certificate and its key."""
    folder = tempfile.mkdtemp(prefix="callbox-handover-")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=callbox -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


class Box:
    """One process, whatever it becomes; the program is a copy that can be replaced."""

    started = []

    def __init__(self, config=CONFIG, prepare=None, environment=os.environ):
        self.folder = tempfile.mkdtemp(prefix="callbox-handover-")
        self.config = os.path.join(self.folder, "callbox.toml")
        self.program = os.path.join(self.folder, "callbox")
        self.write(config)
        self.install(BINARY)
        self.lines = []
        arguments = [self.program, "serve", "--config", self.config]
        self.process = subprocess.Popen(
            arguments,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=prepare,
            env={**environment, "NO_COLOR": "1"},
        )
        Box.started.append(self.process)
        threading.Thread(target=self.read, daemon=True).start()
        deadline = time.time() + 30
        while not self.ports("udp") or not self.ports("tcp listening"):
            need(time.time() < deadline and self.process.poll() is None, "the box does not start")
            time.sleep(0.02)
        # Its handlers come before its sockets.
        self.udp = self.ports("udp")[0]
        self.tls = None

    def read(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def write(self, config):
        with open(self.config, "w") as file:
            file.write(config)
        os.chmod(self.config, 0o600)

    def install(self, source):
        """As dpkg does: the old file is unlinked, the running program keeps it."""
        shutil.copy(source, self.program + ".new")
        os.rename(self.program + ".new", self.program)

    def script(self, text):
        with open(self.program + ".new", "w") as file:
            file.write(text)
        os.chmod(self.program + ".new", 0o755)
        os.rename(self.program + ".new", self.program)

    def inodes(self):
        found = {}
        for name in os.listdir("/proc/%d/fd" % self.process.pid):
            try:
                target = os.readlink("/proc/%d/fd/%s" % (self.process.pid, name))
            except OSError:
                continue
            found.setdefault(target.split("[")[-1].rstrip("]"), name)
        return found

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def ports(self, kind):
        """Where it listens: "udp", or "tcp listening" in the order of their ports."""
        table = "/proc/net/udp" if kind == "udp" else "/proc/net/tcp"
        state = "07" if kind == "udp" else "0A"
        own, found = self.inodes(), set()
        with open(table) as lines:
            next(lines)
            for line in lines:
                fields = line.split()
                if fields[3] == state and fields[9] in own:
                    found.add(int(fields[1].split(":")[1], 16))
        return sorted(found)

    def turn_tcp(self):
        """The TCP port that answers a Binding request; the other one is HTTP."""
        for port in self.ports("tcp listening"):
            with socket.create_connection(("127.0.0.1", port)) as probe:
                probe.settimeout(1)
                probe.sendall(struct.pack("!HHI", 1, 0, 0x2112A442) + bytes(12))
                try:
                    if probe.recv(64)[:2] == b"\x01\x01":
                        return ("127.0.0.1", port)
                except OSError:
                    pass
        raise AssertionError("no TURN over TCP")

    def find_tls(self):
        """Learns which TCP port speaks TLS."""
        for port in self.ports("tcp listening"):
            try:
                with socket.create_connection(("127.0.0.1", port), 2) as probe:
                    trusting().wrap_socket(probe)
                    self.tls = port
            except OSError:
                pass
        need(self.tls, "no port speaks TLS")

    def http(self):
        """The TCP port that is neither TURN's nor TLS's."""
        others = (self.turn_tcp()[1], self.tls)
        return ("127.0.0.1", next(port for port in self.ports("tcp listening") if port not in others))

    def call(self, user, tcp=False):
        server = self.turn_tcp() if tcp else ("127.0.0.1", self.udp)
        return Call(Client(server, SECRET, user, tcp))

    def upgrade(self, wait=True):
        """Returns whether it went well, and what was said."""
        command = [BINARY, "upgrade", "--pid", str(self.process.pid)] + ["--wait"] * wait
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
        return done.returncode == 0, done.stdout + done.stderr

    def log(self, pattern, patience=10):
        """The last line that has the pattern."""
        deadline = time.time() + patience
        while time.time() < deadline:
            found = [line for line in list(self.lines) if re.search(pattern, line)]
            if found:
                return found[-1]
            time.sleep(0.05)
        raise AssertionError("no line %r in the log:\n%s" % (pattern, "".join(self.lines[-30:])))

    def end(self):
        deadline = time.time() + 20
        try:
            # The second one counts; two that come at once are one.
            while time.time() < deadline and self.process.poll() is None:
                self.process.send_signal(signal.SIGINT)
                time.sleep(0.1)
            need(self.process.poll() is not None, "the box does not end")
        finally:
            self.process.kill()
            shutil.rmtree(self.folder)


def calls_go_on():
    box = Box()
    udp = box.call("by-udp")
    tcp = box.call("by-tcp", True)
    time.sleep(1)
    before = box.descriptors()
    waits = []
    for _ in range(3):
        box.install(BINARY)
        count = len(box.lines)
        good, said = box.upgrade()
        need(good, "upgrade: %s\n%s" % (said, "".join(box.lines[-20:])))
        line = box.log(r"went on where", 10)
        need("allocations=2" in line and "streams=1" in line and "lost=0" in line, line)
        waits.append(int(re.search(r"waited_ms=(\d+)", line).group(1)))
        time.sleep(1)
    after = box.descriptors()
    sent = udp.end("UDP")
    ok("UDP: %d and %d packets through three upgrades, none lost, repeated or out of order" % tuple(sent))
    sent = tcp.end("TCP")
    ok("TCP: %d and %d packets through the same, on the same connection" % tuple(sent))
    need(before == after, "descriptors: %d before, %d after" % (before, after))
    need(box.process.poll() is None, "another process")
    need(sorted(waits)[1] < GENEROUS, "packets waited for %s ms" % waits)
    ok("the same process with %d descriptors; packets waited for %s ms" % (after, waits))
    late = Client(("127.0.0.1", box.udp), SECRET, "late")
    need(late.allocate() not in [udp.relayed, tcp.relayed], "a port is lent twice")
    box.end()


def enter(http, names, room="standup"):
    people = [WebSocket(http) for _ in names]
    for person, name in zip(people, names):
        person.say(type="join", id="1", roomId=room, identity=name)
        person.until("joined")
    return people


def contents(*people):
    return [m["content"] for person in people for m in person.seen if m["type"] == "message"]


def rooms_go_on():
    """Connections to a plain port are the same ones after an upgrade."""
    box = Box()
    anna, ben = enter(box.http(), ["anna", "ben"])
    for number in range(20):
        anna.say(type="message", id="m%d" % number, content=number)
    # One frame is half with the old program and half with the new one, its fragments too; ben does not
    # read what is said before the upgrade.
    text = json.dumps({"type": "message", "id": "half", "content": "half"}).encode()
    whole = b"".join([anna.made(1, text[:9], last=False), anna.made(0, text[9:])])
    anna.socket.sendall(whole[:22])
    box.install(BINARY)
    for upgrade in range(2):
        good, said = box.upgrade()
        need(good, said)
        box.log("rooms go on.*sessions=2.*rooms=1.*connections=2")
    anna.socket.sendall(whole[22:])
    for number in range(20, 40):
        anna.say(type="message", id="m%d" % number, content=number)
    expected = list(range(20)) + ["half"] + list(range(20, 40))
    deadline = time.time() + 10
    while len(contents(ben)) < len(expected) and time.time() < deadline:
        ben.read(0.2)
    need(contents(ben) == expected, "messages: %s" % contents(ben))
    anna.frame(9, b"alive?")
    deadline = time.time() + 10
    while not anna.pongs and time.time() < deadline:
        anna.read(0.2)
    need(anna.pongs == [b"alive?"], "no pong")
    need(ben.seqs() == list(range(1, ben.seq + 1)), "numbers: %s" % ben.seqs())
    for person in [anna, ben]:
        kinds = [m["type"] for m in person.seen]
        need(not person.closed and "draining" not in kinds and "peer-left" not in kinds, kinds)
    # Who leaves after it leaves the room.
    anna.socket.close()
    need(ben.until("peer-state")["connection"] == "away", ben.seen[-3:])
    box.end()
    ok("a room: both WebSockets live on through two upgrades, in the midst of a frame; 41 messages in order")


def rooms_resume():
    """A program of the format before closes connections, and their clients resume."""
    box = Box()
    http = box.http()
    people = enter(http, ["anna", "ben"])
    for number in range(20):
        people[0].say(type="message", id="m%d" % number, content=number)
    people[1].until("message")
    tokens = [person.until("joined")["resumeToken"] for person in people]
    box.script(CHECKED % ("echo 1", 'exec "%s" "$@"' % BINARY))
    good, said = box.upgrade()
    need(good, said)
    box.log("rooms go on.*sessions=2.*rooms=1.*connections=0")
    again = []
    for person, token in zip(people, tokens):
        need(person.until("closed") == 1012, "closed with %s" % person.closed)
        draining = person.until("draining")
        need(0 <= draining["reconnectIn"] <= 500 and "seq" not in draining, draining)
        back = WebSocket(http)
        back.until("welcome")
        back.say(type="resume", id="r", resumeToken=token, seq=person.seq)
        resumed = back.until("resumed")
        need(resumed["gap"] is False and len(resumed["peers"]) >= 1, resumed)
        again.append(back)
    for number in range(20, 40):
        again[0].say(type="message", id="m%d" % number, content=number)
    deadline = time.time() + 10
    while len(contents(people[1], again[1])) < 40 and time.time() < deadline:
        again[1].read(0.2)
    received = contents(people[1], again[1])
    need(received == list(range(40)), "messages: %s" % received)
    everything = [m["type"] for person in people + again for m in person.seen]
    need("peer-left" not in everything, "somebody left: %s" % everything)
    with socket.create_connection(http) as scrape:
        scrape.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        need(b"200" in scrape.recv(64), "healthz")
    box.end()
    ok("to a program of the format before: closed with 1012, resumed without a gap, 40 messages in order, nobody left")


def foreign_clients_go_on():
    """Clients of every protocol, over WebSockets and over requests, in the midst of which the box is upgraded."""
    box = Box(CONFIG + dialects.CONFIG)
    everybody = dialects.Everybody(box.http())
    for _ in range(3):
        box.install(BINARY)
        good, said = box.upgrade()
        need(good, said)
        box.log("rooms go on.*sessions=7 .*connections=13")
        everybody.talk()
    everybody.nobody_left()
    everybody.end()
    box.end()
    ok("thirteen clients of seven protocols, three of them over requests or from them to a WebSocket, through three upgrades: nobody left")


# Milliseconds: 150 is what is promised of a box on a machine of its own. A debug build beside other work
# takes longer, and then the figure that is printed is what there is to see.
GENEROUS = 10_000 if "debug" in BINARY else 1_000
# A debug build relays a tenth.
FLOOD = 2_000 if "debug" in BINARY else 20_000


def raise_descriptors(wanted):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(wanted, hard - 1_000)


def waited(line):
    return [int(found) for found in re.search(r"waited_ms=(\d+) here_ms=(\d+)", line).groups()]


# What comes while nobody reads waits in the buffers of sockets, and those of the listeners are as large as
# net.core.rmem_max lets them be: half a thousand packets each on a stock kernel.
def buffers_last():
    """Milliseconds for which the listeners' buffers hold half of the flood, as every other packet is to a peer."""
    with open("/proc/sys/net/core/rmem_max") as file:
        packets = int(file.read()) * 2 // 800 * 2
    return packets * 1_000 // (FLOOD // 2)


def beyond_buffers(wait):
    """Packets that may be lost where nothing was read for that many milliseconds: what came once the buffers were full. Clients are not
    spread evenly over the listeners, so that one of them is full after half of the time, and may be the one that gets nearly all."""
    return max(0, wait - buffers_last() // 2) * FLOOD // 1_000


def upgrade_under_flood(count, is_strict):
    """What is wrong, if anything is; faults that no slow machine explains end the run."""
    box = Box()
    clients = []
    for number in range(count):
        client = Client(("127.0.0.1", box.udp), SECRET, "user%d" % (number % 100))
        client.allocate()
        clients.append(client)
    flood = Flood(clients[:100], FLOOD)
    time.sleep(1)
    good, said = box.upgrade()
    need(good, said)
    line = box.log(r"went on where")
    need("allocations=%d " % count in line and "lost=0" in line, line)
    time.sleep(1)
    sent, lost, repeated, silent = flood.end()
    need(repeated == 0, "%d repeated" % repeated)
    for client in clients[:: max(1, count // 50)]:
        client.socket.setblocking(True)
        client.refresh()
    box.end()
    blackout, here = waited(line)
    allowed = 0 if is_strict else beyond_buffers(max(blackout, silent))
    said = "%d allocations, %d packets a second: packets waited for %d ms (%d ms of it in the new program), %d of %d lost (%d may be)" % (
        count, FLOOD, blackout, here, lost, sent, allowed)
    if blackout >= GENEROUS or lost > allowed:
        return said
    ok(said)


def many_allocations(many):
    """Of a thousand, none may be lost; ten thousand may take longer than stock buffers last, and then what they did not hold is lost."""
    for count, is_strict in ((1_000, True), (raise_descriptors(many), False)):
        for attempt in range(3):
            wrong = upgrade_under_flood(count, is_strict)
            if not wrong:
                break
            print("..  once more: " + wrong, flush=True)
        need(not wrong, "three times: %s" % wrong)


ROOM = 50


def many_sessions(many):
    """Those for whom there are descriptors stay connected; the others are away, within their resume window."""
    connected = raise_descriptors(many) // 2 // ROOM
    box = Box(CONFIG + '[signal]\nheartbeat = "10m"\nresume_window = "1h"\nrate = "1000000/s"\nbyte_rate = "1000MiB/s"\nconnections_per_ip = 100000\n')
    # As much as all rings hold together.
    each = min(60, max(1, (256 << 20) // many // 1_000))
    rooms = []
    for number in range(many // ROOM):
        people = enter(box.http(), ["p%d" % person for person in range(ROOM)], "room%d" % number)
        for message in range(each):
            people[0].say(type="message", id="m%d" % message, content="x" * 900)
        people[0].until_acks(each)
        if number < connected:
            rooms.append(people)
        else:
            for person in people:
                person.socket.close()
    call = box.call("caller")
    time.sleep(0.5)
    good, said = box.upgrade()
    need(good, said)
    line = box.log(r"went on where")
    box.log("rooms go on.*sessions=%d .*connections=%d" % (many // ROOM * ROOM, ROOM * len(rooms)))
    time.sleep(0.5)
    call.end("among many sessions")
    for people in rooms[:: max(1, len(rooms) // 10)]:
        people[0].say(type="message", id="after", content="after")
        people[0].until_acks(each + 1)
    blackout, here = waited(line)
    need(blackout < 2 * GENEROUS, "packets waited for %d ms" % blackout)
    ok(
        "%d sessions (%d connected) with rings of %d messages: packets waited for %d ms (%d ms of it in the new program), none lost"
        % (many // ROOM * ROOM, ROOM * len(rooms), each, blackout, here)
    )
    box.end()


class Backend(http.server.ThreadingHTTPServer):
    """Takes events, or holds every answer back while it is told to."""

    daemon_threads = True

    def __init__(self):
        self.answers, self.events, self.lock = threading.Event(), [], threading.Lock()
        super().__init__(("127.0.0.1", 0), BackendHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def until(self, kind, **fields):
        deadline = time.time() + 60
        while time.time() < deadline:
            for event in list(self.events):
                if event["type"] == kind and all(event.get(name) == value for name, value in fields.items()):
                    return
            time.sleep(0.05)
        raise AssertionError("no event %s %s in %s" % (kind, fields, self.events))


class BackendHandler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.server.answers.wait(120):
            return
        with self.server.lock:
            # At least once: a batch whose answer was held back comes again.
            seen = {event["id"] for event in self.server.events}
            self.server.events += [event for event in json.loads(body)["events"] if event["id"] not in seen]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words):
        pass


# Bytes of each relay over TLS, of 100 packets.
ENOUGH = 100 * 1_000


def relay_over_tls(box, user):
    """A client that has relayed to a peer, both still there."""
    client = Client(("127.0.0.1", box.tls), SECRET, user, True)
    client.socket = trusting().wrap_socket(client.socket)
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind(("127.0.0.1", 0))
    peer.settimeout(10)
    client.allocate()
    client.bind(0x4000, peer.getsockname())
    for _ in range(100):
        client.send_channel(0x4000, b"x" * 1_000)
        # One after the other, so that no buffer is too small for them.
        peer.recv(2048)
    return client


def nothing_is_forgotten():
    """A backend that hangs holds nobody up, and gets what it missed, with the relays that end in an upgrade; bans and usage are kept
    without a folder for them."""
    backend = Backend()
    url = "http://127.0.0.1:%d/" % backend.server_address[1]
    config = CONFIG + '[hooks]\nurl = "%s"\nsecret = "a secret of the hooks of this test"\nallow_private = true\n[auth]\nadmin_token = "an admin token of this test"\n' % url
    pems = certificate()
    config += '[tls]\nlisten = ["127.0.0.1:0"]\ncert = "%s/cert.pem"\nkey = "%s/key.pem"\n' % (pems, pems)
    environment = {name: value for name, value in os.environ.items() if name != "STATE_DIRECTORY"}
    box = Box(config, environment=environment)
    box.find_tls()
    call = box.call("counted")

    def admin(method, path):
        connection = http.client.HTTPConnection(*box.http(), timeout=30)
        connection.request(method, path, headers={"Authorization": "Bearer an admin token of this test"})
        answer = connection.getresponse()
        need(answer.status < 300, "%s %s: %d" % (method, path, answer.status))
        return answer.read()

    people = enter(box.http(), ["anna", "ben"])
    admin("PUT", "/v1/denied/203.0.113.0/24?ttl=3600")
    time.sleep(0.5)
    # Their connections end with the old program, and so do their relays, each with what it has relayed.
    ends = [relay_over_tls(box, "tls%d" % number) for number in range(3)]
    before = json.loads(admin("GET", "/v1/usage"))
    need(before["users"]["counted"] > 0, "nothing was relayed")
    need(all(before["users"]["tls%d" % number] >= ENOUGH for number in range(3)), before)
    before = before["total"]
    trace = subprocess.Popen(
        [BINARY, "trace", "--room", "standup", "--url", "http://127.0.0.1:%d" % box.http()[1], "--token", "an admin token of this test"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    Box.started.append(trace)
    traced = []
    threading.Thread(target=lambda: traced.extend(iter(trace.stdout.readline, "")), daemon=True).start()

    def is_traced():
        """What is said before a trace begins is not in it."""
        messages = lambda: sum("  message  " in line for line in list(traced))
        before, deadline = messages(), time.time() + 30
        while messages() == before and time.time() < deadline:
            need(trace.poll() is None, "the trace has ended: %s" % traced)
            people[0].say(type="message", id="t%d" % time.time_ns(), content="traced")
            people[0].read(0.2)
        need(messages() > before, "traced: %s" % traced)

    def counters():
        """Sums by name and labels, without those of requests that read them."""
        found = {}
        for line in admin("GET", "/metrics").decode().splitlines():
            name = line.split("{")[0].split(" ")[0]
            if not line.startswith("#") and name.endswith(("_total", "_count", "_sum", "_bucket")):
                found[line.rsplit(" ", 1)[0]] = float(line.rsplit(" ", 1)[1])
        return found

    sums = [counters()]
    for name in ("callbox_signal_join_latency_seconds_count", "callbox_relay_worker_cpu_seconds_total", "callbox_relay_packets_total"):
        need(any(key.startswith(name) and value > 0 for key, value in sums[0].items()), "%s: %s" % (name, sums[0]))
    for turn in range(2):
        is_traced()
        began = time.time()
        good, said = box.upgrade()
        need(good, said)
        people[0].say(type="ping", id="p%d" % turn)
        people[0].until("pong")
        taken = time.time() - began
        sums.append(counters())
        # It was more than four seconds while each upgrade waited for the backend twice.
        need(taken < 3.5 or "debug" in BINARY, "the upgrade took %.1f s" % taken)
    for before_, after_ in zip(sums, sums[1:]):
        dips = ["%s: %s, then %s" % (key, value, after_.get(key)) for key, value in before_.items() if after_.get(key, 0) < value]
        need(not dips, "counters that begin anew: %s" % dips)
    is_traced()
    need(sum("was upgraded or restarted" in line for line in traced) == 2, traced)
    trace.kill()
    denied = json.loads(admin("GET", "/v1/denied"))["denied"]
    need([row["network"] for row in denied] == ["203.0.113.0/24"], denied)
    usage = json.loads(admin("GET", "/v1/usage"))
    need(usage["total"] >= before, "%d bytes were relayed before, and %s after" % (before, usage))
    need(all(usage["users"]["tls%d" % number] >= ENOUGH for number in range(3)), usage)
    for end in ends:
        need(end.is_closed(), "a connection over TLS goes on")
    people[1].say(type="leave", id="l")
    backend.answers.set()
    for number in range(3):
        backend.until("relay-ended", user="tls%d" % number, reason="disconnected")
    backend.until("peer-left", identity="ben")
    kinds = [event["type"] for event in backend.events]
    need(kinds.count("room-started") == 1 and kinds.count("relay-ended") == 3 and "gap" not in kinds, kinds)
    need(kinds.index("room-started") < kinds.index("peer-joined") < kinds.index("peer-left"), kinds)
    call.end("a backend that hangs")
    box.end()
    backend.shutdown()
    shutil.rmtree(pems)
    ok(
        "a backend that hangs: two upgrades, the last of them in %.0f ms, %d events in order, three of them of relays over TLS "
        "that ended in the first one; bans and usage kept" % (taken * 1000, len(kinds))
    )


def goes_on(box, client, name):
    need(box.process.poll() is None, "%s: the box has ended\n%s" % (name, "".join(box.lines[-20:])))
    client.refresh()


def faults():
    box = Box()
    client = Client(("127.0.0.1", box.udp), SECRET, "patient")
    relayed = client.allocate()
    real = 'exec "%s" "$@"' % BINARY

    for name, text, words in [
        ("a program that reads no such format", CHECKED % ("echo 0; exit 1", real), "reads format 0"),
        ("a program that knows no hand-over", CHECKED % ("exit 1", real), "knows no hand-over"),
        ("a program that hangs", CHECKED % ("sleep 30", real), "does not answer within"),
        ("a configuration that is wrong", None, "refuses its configuration"),
    ]:
        if text:
            box.script(text)
        else:
            box.install(BINARY)
            box.write(CONFIG + "[turm]\n")
        good, said = box.upgrade()
        need(not good and words in said, "%s: %s" % (name, said))
        box.log("not handed over.*" + words)
        goes_on(box, client, name)
        ok("%s is refused, and the box goes on" % name)
    box.write(CONFIG)

    box.script(CHECKED % ('rm "$0"; echo 2', real))
    good, said = box.upgrade()
    need(not good and "cannot be executed" in said, said)
    box.log("went on where")
    goes_on(box, client, "exec fails")
    box.install(BINARY)
    ok("a program that vanishes before it is executed: the old one goes on with all allocations")

    pair = [
        subprocess.Popen([BINARY, "upgrade", "--wait", "--pid", str(box.process.pid)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [each.communicate(timeout=90)[0] for each in pair]
    codes = sorted(each.returncode for each in pair)
    need(codes in ([0, 0], [0, 1]), "two at once: %s" % said)
    goes_on(box, client, "two at once")
    ok("two upgrades at once: one is done, and the other one is told or done after it")

    for _ in range(5):
        os.kill(box.process.pid, signal.SIGUSR2)
        time.sleep(0.01)
    time.sleep(2)
    goes_on(box, client, "five signals")
    ok("five signals in a row end in a working box")

    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    held.listen()
    busy = CONFIG.replace('udp = ["127.0.0.1:0"]', 'udp = ["127.0.0.1:0", "127.0.0.1:%d"]' % box.udp)
    busy = busy.replace('listen = ["127.0.0.1:0"]', 'listen = ["127.0.0.1:0", "127.0.0.1:%d"]' % held.getsockname()[1])
    box.write(busy)
    good, said = box.upgrade()
    need(good, said)
    box.log("is taken by.*the rest is served")
    goes_on(box, client, "a busy port")
    box.write(CONFIG)
    ok("a port of the new configuration that is taken is named, and the rest is served")

    box.script(CHECKED % ("echo 2", 'exec python3 "%s" "%s" "$@"' % (os.path.join(os.path.dirname(os.path.abspath(__file__)), "damage.py"), BINARY)))
    good, said = box.upgrade()
    need(box.process.poll() is None, "a damaged snapshot ends the box")
    box.log("not taken over|cannot be taken over|starts anew")
    fresh = Client(("127.0.0.1", box.udp if box.udp in box.ports("udp") else box.ports("udp")[0]), SECRET, "fresh")
    fresh.allocate()
    need(relayed[1] not in box.ports("udp"), "a socket of the damaged snapshot stays open")
    ok("a damaged snapshot: the new program starts anew and leaves no descriptor behind")
    box.end()

    box = Box(CONFIG + '[drain]\ngrace = "30s"\n')
    client = Client(("127.0.0.1", box.udp), SECRET, "patient")
    client.allocate()
    box.process.send_signal(signal.SIGTERM)
    box.log("draining")
    good, said = box.upgrade()
    need(not good and "the box drains" in said, said)
    goes_on(box, client, "a drain")
    box.end()
    ok("during a drain it is refused, and the drain goes on")

    # At several moments of a hand-over: before it, while it is prepared, and after it.
    for wait in (0, 0.01, 0.05, 0.2):
        box = Box()
        box.process.send_signal(signal.SIGUSR2)
        time.sleep(wait)
        box.process.send_signal(signal.SIGTERM)
        box.process.wait(60)
    ok("a box that is asked to end while it hands over ends")

    box = Box(CONFIG + "[upgrade]\nhandover = false\n")
    good, said = box.upgrade()
    need(not good and "upgrade.handover" in said, said)
    box.end()
    ok("upgrade.handover = false: refused")

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    box = Box(prepare=small_files)
    call = box.call("full")
    time.sleep(0.3)
    good, said = box.upgrade()
    need(not good and "cannot be written" in said, said)
    box.log("went on where")
    call.end("a full memory file")
    box.end()
    ok("a memory file that is full: the old program goes on, and no packet is lost")


if __name__ == "__main__":
    try:
        calls_go_on()
        rooms_go_on()
        rooms_resume()
        foreign_clients_go_on()
        many_allocations(int(sys.argv[2]) if len(sys.argv) > 2 else 10_000)
        many_sessions(int(sys.argv[3]) if len(sys.argv) > 3 else 2_000)
        nothing_is_forgotten()
        faults()
    finally:
        for process in Box.started:
            process.kill()
