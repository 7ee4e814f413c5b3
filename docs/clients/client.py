"""A callbox client in Python: joins a room, sends everybody's picture, sound and data back, and echoes messages.

    pip install aiortc==1.16.0 websockets==17.4
    python client.py ws://localhost:8080/ws ROOM NAME [TOKEN]
"""

import asyncio
import re
import sys

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp
from session import Session


class Client:
    def __init__(self, session):
        self.session, self.config, self.peers, self.certificates = session, None, {}, {}

    async def run(self):
        async for frame in self.session.frames():
            try:
                await self.receive(frame)
            except Exception as error:  # What a peer wrote may be anything: it costs a connection at most.
                print("dropped", frame["type"], repr(error), flush=True)
        print("ended", self.session.ended, flush=True)

    async def receive(self, frame):
        kind, peer = frame["type"], frame.get("from")
        if "iceServers" in frame and kind in ("joined", "resumed", "ice-servers"):
            servers = [{key: one[key] for key in ("urls", "username", "credential") if key in one} for one in frame["iceServers"]]
            self.config = RTCConfiguration([RTCIceServer(**one) for one in servers])
        if kind in ("joined", "resumed"):
            print(kind, frame["roomId"], "as", frame["peerId"], flush=True)
        if kind == "joined" or frame.get("gap"):  # The newcomer offers to each peer of its list; so does who missed something.
            for gone in list(self.peers):
                await self.peers.pop(gone).close()
            for other in frame["peers"]:
                pc = self.connect(other["peerId"])
                for line in ("audio", "video"):
                    pc.addTransceiver(line)
                await self.describe("offer", other["peerId"], pc, await pc.createOffer())
        elif kind == "offer":
            waits = peer in self.peers and self.peers[peer].signalingState == "have-local-offer"
            if waits and self.session.peer_id > peer:
                return  # Both have offered: that of the smaller peer id gives way.
            if waits or (peer in self.peers and certificate(frame) != self.certificates.get(peer)):
                await self.peers.pop(peer).close()  # Another certificate comes from a new peer connection.
            pc = self.peers.get(peer) or self.connect(peer)
            await self.take(peer, pc, frame)
            await self.describe("answer", peer, pc, await pc.createAnswer())
        elif kind == "answer" and peer in self.peers:
            await self.take(peer, self.peers[peer], frame)
        elif kind == "candidate" and peer in self.peers and frame["candidate"]:
            given = frame["candidate"] if isinstance(frame["candidate"], dict) else {"candidate": frame["candidate"], "sdpMLineIndex": 0}
            if given.get("candidate"):  # An empty one is the end of them.
                candidate = candidate_from_sdp(given["candidate"].split(":", 1)[1])
                candidate.sdpMid, candidate.sdpMLineIndex = given.get("sdpMid"), given.get("sdpMLineIndex")
                await self.peers[peer].addIceCandidate(candidate)
        elif kind == "peer-left" and frame["peerId"] in self.peers:
            await self.peers.pop(frame["peerId"]).close()
        elif kind == "message" and not (isinstance(frame["content"], dict) and "echo" in frame["content"]):
            await self.session.say(type="message", to=peer, content={"echo": frame["content"]})

    def connect(self, peer):
        pc = self.peers[peer] = RTCPeerConnection(self.config)

        @pc.on("track")
        def mirror(track):
            line = next(one for one in pc.getTransceivers() if one.receiver.track is track)
            line.direction = "sendrecv"
            line.sender.replaceTrack(track)

        @pc.on("datachannel")
        def echo(channel):
            channel.on("message", channel.send)

        return pc

    async def take(self, peer, pc, frame):
        self.certificates[peer] = certificate(frame)
        await pc.setRemoteDescription(RTCSessionDescription(sdp_of(frame), frame["type"]))

    async def describe(self, kind, peer, pc, description):
        await pc.setLocalDescription(description)  # aiortc gathers its candidates first: they are in the description.
        await self.session.say(type=kind, to=peer, sdp=pc.localDescription.sdp)


def sdp_of(frame):
    return frame["sdp"] if isinstance(frame["sdp"], str) else frame["sdp"]["sdp"]


def certificate(frame):
    return set(re.findall(r"a=fingerprint:(\S+ \S+)", sdp_of(frame)))


if __name__ == "__main__":
    asyncio.run(Client(Session(*sys.argv[1:])).run())
