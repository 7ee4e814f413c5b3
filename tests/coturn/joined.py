"""Joins a room and prints the TURN username and credential of the reply, one a line.

usage: joined.py PORT
"""

import json, pathlib, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "package"))
sys.dont_write_bytecode = True
from caller import WebSocket

socket = WebSocket(int(sys.argv[1]))
socket.message(type="join", roomId="coturn")
while True:
    for opcode, payload in socket.frames():
        message = json.loads(payload) if opcode == 1 else {}
        if message.get("type") == "joined":
            turn = next(server for server in message["iceServers"] if "credential" in server)
            print(turn["username"], turn["credential"], sep="\n")
            sys.stdout.flush()
            # The relay lives as long as the session: held open until the suite ends it.
            sys.stdin.read()
            sys.exit()
