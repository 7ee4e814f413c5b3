"""Records what a box hands over, for the test that reads the formats of earlier releases.

    tests/handover/record.py BINARY OUT      two allocations, over UDP and TCP, and a room of two
"""

import sys

from upgrade import CONFIG, CHECKED, Box, Client, SECRET, WebSocket

FORMAT = 2
COPY = (
    "import os; fd = int(os.environ['CALLBOX_HANDOVER'].split(':')[0]);"
    "open('%s', 'wb').write(os.pread(fd, os.fstat(fd).st_size, 0))"
)


def main(binary, out):
    box = Box(CONFIG.replace("20000-32000", "20000-20063"))
    clients = [
        Client(("127.0.0.1", box.udp), SECRET, "anna"),
        Client(box.turn_tcp(), SECRET, "ben", True),
    ]
    for client in clients:
        client.allocate()
        client.bind(0x4000, ("127.0.0.1", 4000))
    people = [WebSocket(box.http()) for _ in range(2)]
    for person, name in zip(people, ["anna", "ben"]):
        person.say(type="join", id="1", roomId="standup", identity=name)
        person.until("joined")
        person.say(type="message", id="2", content="hello")
    people[0].until("message")
    box.script(CHECKED % ("echo %d" % FORMAT, 'exec python3 -c "%s"' % (COPY % out)))
    box.upgrade(False)
    box.process.wait(20)


main(*sys.argv[1:])
