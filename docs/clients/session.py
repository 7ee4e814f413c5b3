"""A session with a callbox: joins a room, resumes after a lost connection, joins anew where nothing is left to resume.

Needs websockets==17.4. `token` is a text, or a function that is asked for one before each join."""

import asyncio
import itertools
import json
import random

import websockets

FINAL = {1000, 4001, 4002, 4004, 4007}  # After these codes a client does not come back by itself.


class Session:
    def __init__(self, url, room, name, token=None):
        self.url, self.room, self.name, self.token = url, room, name, token
        self.resume_token = self.peer_id = self.ended = None
        self.socket, self.seq, self.ids, self.unanswered = None, 0, itertools.count(1), {}

    async def frames(self):
        """Yields each frame of the box; over a lost connection too. `ended` says why it ends."""
        attempts = 0
        while self.ended is None:
            code = 1006
            try:
                async with websockets.connect(self.url) as socket:
                    await self.enter(socket)
                    async for text in socket:
                        frame = json.loads(text)
                        await self.take(socket, frame)
                        attempts = 0 if self.socket else attempts
                        yield frame
                        if self.ended:
                            return
                code = socket.close_code
            except websockets.ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else 1006
            except (OSError, websockets.WebSocketException):
                pass
            self.socket = None
            if code in FINAL:
                self.ended = f"closed {code}"
            elif code != 1012 or attempts:  # 1012: the box has another place for the session, at once.
                await asyncio.sleep(min(10, 0.2 * 2**attempts) * random.uniform(0.5, 1))
            attempts += 1

    async def enter(self, socket):
        if self.resume_token:
            request = {"type": "resume", "resumeToken": self.resume_token, "seq": self.seq}
        else:
            token = self.token() if callable(self.token) else self.token
            request = {"type": "join", "roomId": self.room, "identity": self.name, "token": token}
        self.entering = str(next(self.ids))
        await socket.send(json.dumps({**request, "id": self.entering}))

    async def take(self, socket, frame):
        self.unanswered.pop(frame.get("id"), None)
        if frame["type"] in ("joined", "resumed"):
            if frame["type"] == "joined":
                self.seq, self.unanswered = 0, {}
            self.resume_token, self.peer_id, self.socket = frame["resumeToken"], frame["peerId"], socket
            for request in list(self.unanswered.values()):
                await socket.send(request)
        elif frame["type"] == "error" and frame.get("id") == self.entering:
            if frame["code"] == "resume-failed":
                self.resume_token = None
            elif "retryAfter" in frame:
                await asyncio.sleep(frame["retryAfter"] / 1000)
            else:
                self.ended = f"{frame['code']}: {frame['message']}"
                return
            await self.enter(socket)
        self.seq = max(self.seq, frame.get("seq", 0))

    async def say(self, **message):
        """Sends a request; once more, under its old id, if the connection is lost before its answer."""
        message["id"] = str(next(self.ids))
        self.unanswered[message["id"]] = request = json.dumps(message)
        if self.socket:
            try:
                await self.socket.send(request)
            except websockets.ConnectionClosed:
                pass
