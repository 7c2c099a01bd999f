"""A registry on loopback with one small image per tag, which can require a password, refuse, or hang."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_REFUSALS = {
    401: ("UNAUTHORIZED", "authentication required"),
    403: ("DENIED", "requested access to the resource is denied"),
    404: ("MANIFEST_UNKNOWN", "manifest unknown"),
    429: ("TOOMANYREQUESTS", "too many requests: you have reached your pull rate limit"),
    503: ("UNAVAILABLE", "service unavailable"),
}
"""Status → the code and message of the registry's error."""


class Registry:
    """The registry. `users`: name → password, empty if open to all. `hangs`: it never answers requests.

    `refuses`: the status with which it answers each request, as a registry whose limit is reached.
    """

    def __init__(self) -> None:
        self.users: dict[str, str] = {}
        self.hangs = False
        self.refuses: int | None = None
        self.asked: list[str] = []
        """Method and path of each request."""
        self._blobs: dict[str, bytes] = {}
        self._tags: dict[str, bytes] = {}
        self._released = threading.Event()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.answer(self)

            do_HEAD = do_GET  # noqa: N815 - the name that the handler needs

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - an override
                """Do nothing, so that tests print no requests."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    def push(self, name: str, content: str, config: Mapping[str, Any] | None = None) -> str:
        """Add an image as `name` (repository:tag), and return the reference to pull it by.

        `config` has further settings of the image.
        """
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            entry = tarfile.TarInfo("content")
            entry.size = len(content.encode())
            tar.addfile(entry, io.BytesIO(content.encode()))
        packed = gzip.compress(layer.getvalue(), mtime=0)
        description = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"ExposedPorts": {"8080/tcp": {}}, "Labels": {"sluice.test": "engine"}, **(config or {})},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
        }
        return self._tag(name, description, [packed])

    def push_saved(self, name: str, saved: Path) -> str:
        """Add an image that `docker save` wrote, under an id of its own, and return the reference to pull it by."""
        with tarfile.open(saved) as tar:

            def content(path: str) -> bytes:
                part = tar.extractfile(path)
                assert part is not None
                return part.read()

            (image,) = json.loads(content("manifest.json"))
            description = {**json.loads(content(image["Config"])), "author": name}
            return self._tag(name, description, [content(layer) for layer in image["Layers"]])

    def _tag(self, name: str, description: Mapping[str, Any], layers: Sequence[bytes]) -> str:
        parts = [json.dumps(description).encode(), *layers]
        kinds = ["application/vnd.docker.container.image.v1+json"]
        kinds += ["application/vnd.docker.image.rootfs.diff.tar.gzip"] * len(layers)
        described = [
            {"mediaType": kind, "size": len(part), "digest": self._keep(part)}
            for kind, part in zip(kinds, parts, strict=True)
        ]
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": described[0], "layers": described[1:]}
        self._tags[name] = json.dumps(manifest).encode()
        self._keep(self._tags[name])
        return f"{self.host}/{name}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(f"{request.command} {request.path}")
        if self.hangs:
            self._released.wait()
            return
        status, kind, body = self._reply(request)
        request.send_response(status)
        if status == 401:
            request.send_header("WWW-Authenticate", 'Basic realm="test"')
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        request.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(body).hexdigest()}")
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    def _reply(self, request: BaseHTTPRequestHandler) -> tuple[int, str, bytes]:
        if self.refuses is not None:
            return self.refuses, "application/json", _error(*_REFUSALS[self.refuses])
        if self.users and not self._known(request.headers.get("Authorization", "")):
            return 401, "application/json", _error("UNAUTHORIZED", "authentication required")
        path = request.path.removeprefix("/v2/")
        if not path:
            return 200, "application/json", b"{}"
        repository, what, name = path.rsplit("/", 2)
        found = self._blobs.get(name) if name.startswith("sha256:") else self._tags.get(f"{repository}:{name}")
        if found is None:
            return 404, "application/json", _error("MANIFEST_UNKNOWN", "manifest unknown")
        return 200, _MANIFEST if what == "manifests" else "application/octet-stream", found

    def _known(self, authorization: str) -> bool:
        return any(
            authorization == f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
            for user, password in self.users.items()
        )

    def _keep(self, part: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(part).hexdigest()}"
        self._blobs[digest] = part
        return digest

    def open(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._released.set()
        self.stop()

    def stop(self) -> None:
        """Stop listening, so that connections are refused. A second call does nothing."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def registry() -> Iterator[Registry]:
    it = Registry()
    it.open()
    try:
        yield it
    finally:
        it.close()


def header(user: str, password: str, host: str) -> str:
    """Return the text of an X-Registry-Auth header, as Docker's own command line sends it."""
    credentials = {"username": user, "password": password, "serveraddress": host}
    return base64.urlsafe_b64encode(json.dumps(credentials).encode()).decode()


def _error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()
