"""Answers as cog's server does, in 40 lines: copied into a package as cog/server/http.py, `python -m cog.server.http` starts it."""
import base64
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PNG = b"\x89PNG\r\n\x1a\n picture of "
PROCESS = f" by {os.urandom(4).hex()} {os.getpid()}".encode()  # in a sandbox, ids of processes repeat
canceled = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, {"status": "READY"})

    def do_POST(self):
        canceled.set()
        self.answer(200, {})

    def do_PUT(self):
        inputs = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        prompt = inputs.get("prompt", "")
        if prompt == "die":
            print("error: killed by a frog", flush=True)
            os._exit(3)
        if prompt == "refuse":
            return self.answer(422, {"detail": [{"loc": ["body", "input", "width"], "msg": "Input should be 128"}]})
        if prompt == "slow":
            canceled.wait(100)
            return self.answer(200, {"status": "canceled"})
        if prompt == "fail":
            return self.answer(200, {"status": "failed", "error": "no frog", "logs": "looked\n"})
        picture = "data:image/png;base64," + base64.b64encode(PNG + prompt.encode() + PROCESS).decode()
        facts = {"inputs": inputs, "base": os.environ.get("BASE_MODEL_PATH")}
        return self.answer(200, {"status": "succeeded", "output": [picture], "logs": json.dumps(facts)})

    def answer(self, code, content):
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    if os.path.exists("broken"):  # noqa: PTH110
        sys.exit("error: these weights are broken")
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
