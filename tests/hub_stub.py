"""A hub of one process: what huggingface_hub asks over HTTP to create, fill and read repositories, kept in memory."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

LARGE = (".lex", ".safetensors")
"""Files that the hub keeps as large ones, by SHA-256."""


class Hub:
    """Repositories "TYPEs/USER/NAME": {commit: {path: bytes}}, newest last."""

    def __init__(self):
        self.repositories, self.private, self.requests = {}, {}, []

    def files(self, repository, revision="main"):
        commits = self.repositories[repository]
        return next(reversed(commits.values())) if revision == "main" else commits[revision]

    def commit_id(self, repository, revision="main"):
        return next(reversed(self.repositories[repository])) if revision == "main" else revision

    def address(self, repository):
        return f"{self.url}/{repository.removeprefix('models/')}"

    def commit(self, repository, files):
        name = hashlib.sha1(f"{repository}{len(self.repositories[repository])}".encode(), usedforsecurity=False).hexdigest()
        self.repositories[repository][name] = files
        return name


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def answer(self, body, status=200, **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self):
        hub, body = self.server.hub, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = unquote(urlparse(self.path).path).strip("/").split("/")
        hub.requests.append((self.command, self.path))
        if parts[:3] == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked.get('type') or 'model'}s/{asked.get('organization')}/{asked['name']}".replace("None/", "")
            if name in hub.repositories:
                return self.answer({"error": "there", "url": hub.address(name)}, 409)
            hub.repositories[name], hub.private[name] = {}, bool(asked.get("private") or asked.get("visibility") == "private")
            hub.commit(name, {})
            return self.answer({"url": hub.address(name)})
        repository, action = "/".join(parts[1:4]), parts[4]
        if repository not in hub.repositories:
            return self.answer({"error": "no repository"}, 404, X_Error_Code="RepoNotFound")
        if action == "preupload":
            files = json.loads(body)["files"]
            return self.answer(
                {"files": [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in files]}
            )
        files = dict(hub.files(repository))
        for line in body.decode().splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        commit = hub.commit(repository, files)
        return self.answer({"commitOid": commit, "commitUrl": f"{hub.address(repository)}/commit/{commit}"})

    def do_GET(self):
        hub, path = self.server.hub, unquote(urlparse(self.path).path)
        hub.requests.append((self.command, self.path))
        parts = path.strip("/").split("/")
        is_api = parts[0] == "api"
        parts = parts[1:] if is_api else parts if parts[0] in ("datasets", "models") else ["models", *parts]
        repository, rest = "/".join(parts[:3]), parts[3:]
        if repository not in hub.repositories:
            return self.answer({"error": "no repository"}, 404, X_Error_Code="RepoNotFound", X_Error_Message="no repository")
        revision = rest[1] if len(rest) > 1 else "main"
        commit, files = hub.commit_id(repository, revision), hub.files(repository, revision)
        if is_api and rest[:1] == ["tree"]:
            return self.answer([self.entry(name, content) for name, content in files.items()])
        if is_api:
            return self.answer({"id": "/".join(parts[1:3]), "sha": commit, "siblings": [{"rfilename": name} for name in files]})
        name = "/".join(rest[2:])
        content = getattr(hub, "served", {}).get(name, files[name])
        entry = self.entry(name, files[name])
        return self.answer(content, ETag=f'"{entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]}"', X_Repo_Commit=commit)

    do_HEAD = do_GET  # noqa: N815

    def entry(self, name, content):
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        entry = {"type": "file", "path": name, "size": len(content), "oid": blob}
        if name.endswith(LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return entry


@contextmanager
def served():
    """Serve an empty hub; yields it with its ``url``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = Hub()
    server.hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
