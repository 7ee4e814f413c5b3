"""A way from one node to Redis that can be cut."""

import os
import queue
import socket
import threading
import time

OPEN, REFUSE, HOLD, HOLD_TO_NODE, HOLD_TO_REDIS = "open", "refuse", "hold", "hold-to-node", "hold-to-redis"


class Proxy:
    """A Unix socket in front of Redis'. What is held comes late or never, as from TCP without packets."""

    def __init__(self, path, target, delay=0):
        self.socket, self.target, self.mode, self.delay = path, target, OPEN, delay
        self.ends, self.lock = set(), threading.Lock()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                node, _ = self.listener.accept()
            except OSError:
                return
            redis = socket.socket(socket.AF_UNIX)
            try:
                if self.mode == REFUSE:
                    raise OSError
                redis.connect(self.target)
            except OSError:
                node.close()
                redis.close()
                continue
            with self.lock:
                self.ends.update((node, redis))
            for ends in ((node, redis, HOLD_TO_REDIS), (redis, node, HOLD_TO_NODE)):
                threading.Thread(target=self.carry, args=ends, daemon=True).start()

    def read(self, source, arrived):
        """Notes when each piece is to go on, so that many are on the way at once."""
        try:
            while data := source.recv(65536):
                arrived.put((time.time() + self.delay, data))
        except OSError:
            pass
        arrived.put(None)

    def carry(self, source, target, held):
        arrived = queue.Queue()
        threading.Thread(target=self.read, args=(source, arrived), daemon=True).start()
        try:
            while entry := arrived.get():
                due, data = entry
                time.sleep(max(0, due - time.time()))
                while self.mode in (HOLD, held):
                    time.sleep(0.02)
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        with self.lock:
            was_first = source in self.ends
            self.ends.discard(source)
            self.ends.discard(target)
        if not was_first:
            source.close()
            target.close()

    def set(self, mode):
        self.mode = mode
        if mode == REFUSE:
            with self.lock:
                ends = list(self.ends)
            for end in ends:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def end(self):
        self.set(REFUSE)
        self.listener.close()
        if os.path.exists(self.socket):
            os.remove(self.socket)
