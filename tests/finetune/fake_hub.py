"""A local HTTP server that plays the Hugging Face hub for one repository, and counts what is asked of it."""
from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves `files` (by their path in the repository) as owner/name; a context manager. `downloads` counts GETs by path."""

    def __init__(self, repo_id: str, files: Mapping[str, bytes]):
        self.repo_id, self.files = repo_id, dict(files)
        self.downloads: Counter[str] = Counter()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self, with_body=False)

            def do_GET(self) -> None:
                hub.answer(self, with_body=True)

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

    def answer(self, request: BaseHTTPRequestHandler, with_body: bool) -> None:
        path = request.path.partition("?")[0]
        body, headers = self._content(path)
        if body is None:
            request.send_response(404)
            headers = {"X-Error-Code": "RepoNotFound", "Content-Length": "0"}
            body = b""
        else:
            request.send_response(200)
            headers["Content-Length"] = str(len(body))
            if with_body and "ETag" in headers:
                self.downloads[path.partition(f"/resolve/{COMMIT}/")[2]] += 1
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        if with_body:
            request.wfile.write(body)

    def _content(self, path: str) -> tuple[bytes | None, dict[str, str]]:
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


def _hash(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
