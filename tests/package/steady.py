"""Two relayed calls through the box of this container, over UDP and TCP, at 1,000 packets a second each way.

usage: steady.py PORT SECRET-FILE   (beside tests/handover/turn.py and call.py)

On SIGTERM it prints how many packets were sent, or ends with 1 and what was lost, repeated, out of order,
or refused.
"""

import json
import signal
import sys

from call import Call
from turn import Client

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
server = ("127.0.0.1", int(sys.argv[1]))
with open(sys.argv[2]) as file:
    secret = file.read().strip()
calls = {
    name: Call(Client(server, secret, "steady-" + name, name == "TCP")) for name in ["UDP", "TCP"]
}
print("calling", flush=True)
signal.sigwait({signal.SIGTERM})
print(json.dumps({name: call.end(name) for name, call in calls.items()}), flush=True)
