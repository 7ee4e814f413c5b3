"""Two relays over UDP and two over TCP at an address of the box: for each line of stdin, one line that says what arrives
over them. tests/addresses/run starts it in its namespace."""

import asyncio, json, os, sys, urllib.request

sys.dont_write_bytecode = True
sys.path.append(f"{os.path.dirname(os.path.abspath(__file__))}/../soak")
from clients import Turn

HOST = sys.argv[1]


async def arrives(one, other):
    """Whether what is said comes; a datagram may be lost on a busy machine."""
    for _ in range(10):
        data = os.urandom(100)
        try:
            one.say(data)
            await asyncio.wait_for(other.receive(data), 1)
            return "arrives"
        except (TimeoutError, OSError, EOFError):
            pass
    return "silent"


async def main():
    answer = json.load(urllib.request.urlopen(f"http://{HOST}:8080/v1/ice-servers"))
    server = next(s for s in answer["iceServers"] if "username" in s)
    pairs = []
    for kind in ("udp", "tcp"):
        one, other = [await Turn(server["username"], server["credential"], kind).open(HOST, None) for _ in range(2)]
        for client in (one, other):
            await client.allocate()
        await one.channel(other.relayed)
        await other.channel(one.relayed)
        pairs.append((kind, one, other))
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        said = [f"{kind} {await arrives(one, other)} {await arrives(other, one)}" for kind, one, other in pairs]
        print(", ".join(said), flush=True)


asyncio.run(main())
