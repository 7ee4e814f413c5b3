"""Three nodes over a Redis behind a balancer of a few lines, on loopback, until it is interrupted."""

import os
import shutil
import socket
import sys
import tempfile
import threading

sys.path.insert(0, os.path.dirname(__file__))
from harness import ADMIN, Node, Redis, balance


def main():
    folder = tempfile.mkdtemp(prefix="callbox-redis-")
    redis, nodes = Redis(folder), []
    try:
        nodes = [Node(name, redis) for name in ("node-1", "node-2", "node-3")]
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=balance, args=(listener, nodes), daemon=True).start()
        print("page     http://localhost:%d/" % listener.getsockname()[1])
        for node in nodes:
            print("%s   http://localhost:%d/   pid %d" % (node.name, node.port, node.process.pid))
        print("admin    curl -H 'Authorization: Bearer %s' http://localhost:%d/v1/nodes" % (ADMIN, nodes[0].port))
        print("redis    redis-cli -s %s   pid %d" % (redis.socket, redis.process.pid))
        print("Kill, stop and continue what you like; Ctrl-C ends all of it.", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        for node in nodes:
            node.remove()
        redis.end()
        shutil.rmtree(folder, ignore_errors=True)


main()
