"""A data channel between two aiortc peers that hold a fixed TURN user and password, through the relay.

aiortc_call.py PORT USER PASSWORD [hold]: prints what came through, or ends with an error. With `hold`, messages go to
and fro until none has come back for two seconds; then it prints when the last one came (Unix seconds).
"""
import asyncio, os, sys, time

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription

PORT, USER, PASSWORD, *HOLD = sys.argv[1:]


def peer():
    url = f"turn:127.0.0.1:{PORT}?transport=udp"
    server = RTCIceServer(urls=[url], username=USER, credential=PASSWORD)
    return RTCPeerConnection(RTCConfiguration(iceServers=[server]))


def relayed_only(description):
    """The description without candidates that need no relay: aiortc knows no relay-only policy."""
    lines = description.sdp.splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("a=candidate") or " typ relay" in line]
    assert len(kept) < len(lines) and any(" typ relay" in line for line in kept), "no relayed candidate"
    return RTCSessionDescription("".join(kept), description.type)


async def main():
    caller, callee = peer(), peer()
    echoed = asyncio.get_running_loop().create_future()

    @callee.on("datachannel")
    def opened(channel):
        channel.on("message", lambda message: channel.send(f"echo of {message}"))

    channel = caller.createDataChannel("chat")
    channel.on("open", lambda: channel.send("hello"))
    last = 0.0

    @channel.on("message")
    def came(message):
        nonlocal last
        last = time.time()
        echoed.done() or echoed.set_result(message)

    await caller.setLocalDescription(await caller.createOffer())
    await callee.setRemoteDescription(relayed_only(caller.localDescription))
    await callee.setLocalDescription(await callee.createAnswer())
    await caller.setRemoteDescription(relayed_only(callee.localDescription))
    print(await asyncio.wait_for(echoed, 30), flush=True)
    while HOLD and time.time() - last < 2:
        if channel.bufferedAmount == 0 and channel.readyState == "open":
            channel.send("still there?")
        await asyncio.sleep(0.02)
    if HOLD:
        print(f"{last:.3f}", flush=True)
        # Closing would wait for relays that are gone.
        os._exit(0)
    await caller.close()
    await callee.close()


asyncio.run(main())
