"""A local HTTP server that plays the Hugging Face hub for one repository: downloads, uploads, and faults when told."""
from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves `files` (by their path in the repository) as owner/name; a context manager. `downloads` counts GETs by path.

    What is uploaded ends up in `files`. `created` holds what repositories were asked for; `faults` the statuses with which the next
    requests are answered whose path contains the key, for instance {"/commit/": [500, 500]}; `tokens` those that requests came with.
    """

    def __init__(self, repo_id: str, files: Mapping[str, bytes] | None = None):
        self.repo_id, self.files = repo_id, dict(files or {})
        self.downloads: Counter[str] = Counter()
        self.created: list[dict[str, Any]] = []
        self.faults: dict[str, list[int]] = {}
        self.tokens: set[str | None] = set()
        self._objects: dict[str, bytes] = {}  # large files by hash, until a commit names them
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self, with_body=False)

            def do_GET(self) -> None:
                hub.answer(self, with_body=True)

            def do_POST(self) -> None:
                hub.take(self)

            do_PUT = do_POST

            def log_message(self, *_: object) -> None:
                """Tests are quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- downloads ---

    def answer(self, request: BaseHTTPRequestHandler, with_body: bool) -> None:
        if self._fails(request):
            return
        path = request.path.partition("?")[0]
        body, headers = self._content(path)
        if body is None:
            _reply(request, 404, b"", {"X-Error-Code": "RepoNotFound"}, with_body)
            return
        if with_body and "ETag" in headers:
            self.downloads[path.partition(f"/resolve/{COMMIT}/")[2]] += 1
        _reply(request, 200, body, headers, with_body)

    def _content(self, path: str) -> tuple[bytes | None, dict[str, str]]:
        if path == "/api/whoami-v2":
            return b'{"name": "me"}', {"Content-Type": "application/json"}
        if path.startswith(f"/api/models/{self.repo_id}/tree/"):
            entries = [{"type": "file", "path": name, "size": len(data), "oid": _hash(data)} for name, data in self.files.items()]
            return json.dumps(entries).encode(), {"Content-Type": "application/json"}
        if path == f"/api/models/{self.repo_id}" or path.startswith(f"/api/models/{self.repo_id}/revision/"):
            info = {"id": self.repo_id, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]}
            return json.dumps(info).encode(), {"Content-Type": "application/json"}
        name = path.removeprefix(f"/{self.repo_id}/resolve/").partition("/")[2]
        if name not in self.files:
            return None, {}
        return self.files[name], {"ETag": f'"{_hash(self.files[name])}"', "X-Repo-Commit": COMMIT}

    # --- uploads ---

    def take(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if self._fails(request):
            return
        self.tokens.add(request.headers.get("Authorization"))
        path, answer = request.path.partition("?")[0], {}
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            answer = {"url": f"{self.address}/{self.repo_id}", "name": self.repo_id}
        elif path.startswith(f"/api/models/{self.repo_id}/preupload/"):
            answer = {"files": [_mode(file["path"]) for file in json.loads(body)["files"]]}
        elif path == f"/{self.repo_id}.git/info/lfs/objects/batch":
            answer = {"transfer": "basic", "objects": [self._wanted(item) for item in json.loads(body)["objects"]]}
        elif path.startswith("/objects/"):
            self._objects[path.removeprefix("/objects/")] = body
        elif path.startswith(f"/api/models/{self.repo_id}/commit/"):
            self._commit([json.loads(line) for line in body.splitlines()])
            answer = {"commitUrl": f"{self.address}/{self.repo_id}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}
        else:
            _reply(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
            return
        _reply(request, 200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _wanted(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "actions": {"upload": {"href": f"{self.address}/objects/{item['oid']}", "header": {}}}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                data = self._objects[value["oid"]]
                assert hashlib.sha256(data).hexdigest() == value["oid"]
                self.files[value["path"]] = data

    # --- faults ---

    def _fails(self, request: BaseHTTPRequestHandler) -> bool:
        """Answers with the next fault for this path, and repeats the token as a careless server may."""
        statuses = next((statuses for part, statuses in self.faults.items() if part in request.path and statuses), None)
        if statuses is None:
            return False
        said = json.dumps({"error": f"no, {request.headers.get('Authorization')}"}).encode()
        _reply(request, statuses.pop(0), said, {"Content-Type": "application/json"})
        return True


def _reply(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str], with_body: bool = True) -> None:
    request.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    if with_body:
        request.wfile.write(body)


def _mode(path: str) -> dict[str, Any]:
    is_large = path.endswith((".safetensors", ".bin"))
    return {"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}


def _hash(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
