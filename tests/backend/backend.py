"""An application's backend: mints tokens, takes events, answers questions. Python, without packages."""
import base64, hashlib, hmac, json, os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

CALLBOX_SECRET, HOOKS_SECRET = (os.environ[name].encode() for name in ("CALLBOX_SECRET", "HOOKS_SECRET"))
seen = set()

def mint(user, room):
    encode = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    claims = {"sub": user, "room": room, "exp": int(time.time()) + 600}
    text = b".".join(encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return text + b"." + encode(hmac.new(CALLBOX_SECRET, text, hashlib.sha256).digest())

def is_signed(header, body):
    parts = dict(part.split("=", 1) for part in (header or "t=0,v1=").split(","))
    expected = hmac.new(HOOKS_SECRET, parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    return abs(time.time() - int(parts["t"])) < 300 and hmac.compare_digest(expected, parts["v1"])

class Backend(BaseHTTPRequestHandler):
    def answer(self, body=b"", status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):  # Your own login says who the user is; here anybody is who they say.
        query = parse_qs(urlparse(self.path).query)
        self.answer(mint(query["user"][0], query["room"][0]))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not is_signed(self.headers["Callbox-Signature"], body):
            return self.answer(status=401)
        if self.path == "/authorize":
            allow = json.loads(body)["identity"] != "mallory"
            return self.answer(json.dumps({"allow": allow, "reason": "not on the list"}).encode())
        for event in json.loads(body)["events"]:
            if event["id"] not in seen:  # Else it came twice: the first answer was lost.
                seen.add(event["id"])
                print(event["type"], event.get("room", ""), event.get("identity", ""), flush=True)
        self.answer()

    def log_message(self, *_): pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Backend).serve_forever()
