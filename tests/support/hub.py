"""A stand-in of the hub on this machine: an HTTP server with the endpoints that huggingface_hub and datasets ask of one."""

import base64
import functools
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef" * 2 + "01234567"


class StandIn(ThreadingHTTPServer):
    """Serves `<folder>/<owner>/<name>/` as data sets whose `main` is COMMIT, and as models, which can be written.

    Attributes:
        left: bytes that are served of parquet files until every connection breaks off; None for no end.
        ranges: what was served of parquet files, as (name, first byte).
        refused: models' repositories that nobody may write.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.left: int | None = None
        self.ranges: list[tuple[str, int]] = []
        self.refused: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        sent = self._sent()
        if self._written(urlsplit(self.path).path, sent):
            return
        self._answer(paths=json.loads(sent)["paths"] if sent.startswith("{") else parse_qs(sent).get("paths", []))

    def _sent(self) -> str:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts).decode()

    def _written(self, path: str, sent: str) -> bool:
        """Whether it was a request to write a model's repository: made, asked how files are sent, and sent in a commit."""
        if path == "/api/repos/create":
            name = json.loads(sent)
            where = f"{name.get('organization') or 'me'}/{name['name']}"
            if where in self.server.refused:
                self._json({"error": "no right to write here"}, 403)
                return True
            (self.server.folder / where).mkdir(parents=True, exist_ok=True)
            self._json({"url": f"{self.server.url}/{where}"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in json.loads(sent)["files"]]
            self._json({"files": files})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            for line in map(json.loads, sent.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    (self.server.folder / found[1] / value["path"]).write_bytes(base64.b64decode(value["content"]))
            self._json({"commitUrl": f"{self.server.url}/{found[1]}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})
        else:
            return False
        return True

    def _answer(self, body: bool = True, paths: list[str] | None = None) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            file = self.server.folder / found[1] / found[2]
            return self._file(file, body) if file.is_file() else self._missing()
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            file = self.server.folder / found[1] / found[2]
            return self._file(file, body) if file.is_file() else self._missing()
        found = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?", path)
        folder = self.server.folder / found[1] if found else None
        if found is None or folder is None or not folder.is_dir():
            return self._missing()
        if found[2] == "paths-info":
            return self._json([_entry(folder, folder / one) for one in paths or () if (folder / one).exists()])
        if found[2] == "tree":
            top = folder / (found[4] or "")
            inner = top.rglob("*") if "recursive=True" in self.path or "recursive=true" in self.path else top.glob("*")
            return self._json([_entry(folder, one) for one in sorted(inner)]) if top.is_dir() else self._missing()
        files = [one for one in sorted(folder.rglob("*")) if one.is_file()]
        siblings = [{"rfilename": str(one.relative_to(folder)), "size": one.stat().st_size} for one in files]
        return self._json({"_id": "0", "id": found[1], "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})

    def _file(self, file: Path, body: bool) -> None:
        size = file.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        left = (min(int(asked[2]) + 1, size) if asked and asked[2] else size) - first
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{_digest(file, size)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{first + left - 1}/{size}")
        self.send_header("Content-Length", str(left))
        self.end_headers()
        if body and file.suffix == ".parquet":
            self.server.ranges.append((file.name, first))
            if self.server.left is not None:
                left = min(left, self.server.left)
                self.server.left -= left
                self.close_connection = True
        if body:
            with file.open("rb") as source:
                source.seek(first)
                while left > 0 and (part := source.read(min(left, 1 << 20))):  # files of the benchmark are large
                    self.wfile.write(part)
                    left -= len(part)

    def _json(self, value: object, status: int = 200) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _missing(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@functools.lru_cache(maxsize=256)
def _digest(file: Path, size: int) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _entry(folder: Path, path: Path) -> dict[str, object]:
    name = str(path.relative_to(folder))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0", "size": 0}
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": _digest(path, path.stat().st_size)[:40]}


@contextmanager
def stand_in(folder: Path) -> Iterator[StandIn]:
    """Inside, the stand-in answers."""
    with StandIn(folder) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
