"""Ollama's own routes for models: version, status, tags, ps, show, delete, copy, blobs, pull, create."""

from __future__ import annotations

import time
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, request

from app.engine import VERSION, gojson
from app.engine.gojson import Field
from app.engine.models import create, details
from app.engine.pulls.transfer import PullError
from app.engine.routes import conversation, wire
from app.engine.routes.wire import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.engine.gojson import Object
    from app.engine.models.store import Model, ModelStore
    from app.engine.routes.wire import Services
    from app.engine.runners.scheduler import Loaded

_NAMES = {"model": Field("string"), "name": Field("string")}
_PULL = _NAMES | {"insecure": Field("bool"), "stream": Field("bool", "*bool")}
_COPY = {"source": Field("string"), "destination": Field("string")}
_CREATE = _NAMES | {
    "from": Field("string"),
    "files": Field("object", "map[string]string"),
    "template": Field("string"),
    "system": Field("string"),
    "parameters": Field("object", "map[string]interface {}"),
    "messages": Field("array", "[]api.Message"),
    "stream": Field("bool", "*bool"),
}


def native_routes(services: Services) -> Blueprint:
    """Build the routes."""
    blp = Blueprint("native", __name__)
    _add_reading(blp, services)
    _add_writing(blp, services)
    _add_blobs(blp, services)
    _add_arriving(blp, services)
    return blp


def _add_reading(blp: Blueprint, services: Services) -> None:
    store = services.store

    @blp.get("/")
    def root() -> Response:
        return Response("Ollama is running", content_type="text/plain; charset=utf-8")

    @blp.get("/api/version")
    def version() -> Response:
        return wire.json_response({"version": VERSION})

    @blp.get("/api/status")
    def status() -> Response:
        return wire.json_response({"cloud": {"disabled": True, "source": "env"}})

    @blp.get("/api/tags")
    def tags() -> Response:
        return wire.json_response({"models": [_tag(store, model) for model in store.models()]})

    @blp.get("/api/ps")
    def running() -> Response:
        loaded = services.scheduler.running()
        return wire.json_response({"models": [_process(store, entry) for entry in loaded]})

    @blp.post("/api/show")
    def show() -> Response:
        fields = _NAMES | {"verbose": Field("bool"), "system": Field("string")}
        body = wire.read_body("ShowRequest", fields)
        return wire.json_response(_shown(store, body))


def _add_writing(blp: Blueprint, services: Services) -> None:
    store = services.store

    @blp.delete("/api/delete")
    def delete() -> Response:
        text = wire.model_of(wire.read_body("DeleteRequest", _NAMES))
        if not text:
            raise ApiError(400, "model is required")
        model = store.find(wire.parse_name(text, f'name "{text}" is invalid'))
        if model is None:
            raise ApiError(404, f"model '{text}' not found")
        store.delete(model)
        return wire.empty_response()

    @blp.post("/api/copy")
    def copy() -> Response:
        body = wire.read_body("CopyRequest", _COPY)
        source, destination = body.get("source", ""), body.get("destination", "")
        name = wire.parse_name(source, f'source "{source}" is invalid')
        target = wire.parse_name(destination, f'destination "{destination}" is invalid')
        model = store.find(name)
        if model is None:
            raise ApiError(404, f'model "{source}" not found')
        store.copy(model, target)
        return wire.empty_response()


def _add_blobs(blp: Blueprint, services: Services) -> None:
    store = services.store

    @blp.route("/api/blobs/<digest>", methods=["HEAD"], provide_automatic_options=False)
    def find_blob(digest: str) -> Response:
        if not _blob_exists(store, digest):
            raise ApiError(404, f"stat {digest}: no such file or directory")
        return wire.empty_response()

    @blp.post("/api/blobs/<digest>")
    def upload_blob(digest: str) -> Response:
        if _blob_exists(store, digest):
            return wire.empty_response()
        try:
            store.add_stream(digest, request.stream)
        except ValueError as exc:
            raise ApiError(400, str(exc)) from exc
        return wire.empty_response(201)


def _add_arriving(blp: Blueprint, services: Services) -> None:
    @blp.post("/api/pull")
    def pull() -> Response:
        body = wire.read_body("PullRequest", _PULL)
        text = wire.model_of(body)
        name = wire.parse_name(text.removeprefix("http://").removeprefix("https://"))
        insecure = bool(body.get("insecure"))
        lines = services.pulls.pull(name, insecure=insecure, gone=wire.client_gone())
        return _progress(lines, body)

    @blp.post("/api/create")
    def make() -> Response:
        body = wire.read_body("CreateRequest", _CREATE)
        name = wire.parse_name(wire.model_of(body))
        if not body.get("from") and not body.get("files"):
            message = {"error": "neither 'from' or 'files' was specified"}
            return wire.json_response(message, 400, wire.JSON)
        try:
            create.check_files(body.get("files") or {})
        except create.CreateError as exc:
            raise ApiError(400, str(exc)) from exc
        conversation.check_messages(body.get("messages") or [])
        conversation.check_options(body.get("parameters") or {})
        origin = wire.parse_name(body["from"]) if body.get("from") else None
        known = services.store.find(origin) if origin else None
        pulled: Iterator[Object] = iter(())
        if origin and known is None:  # Ollama pulls the model of `from` first (``create_from_unknown``)
            pulled = services.pulls.pull(origin, insecure=False, gone=wire.client_gone())
        made = create.create(services.store, name, origin, body)
        return _progress(chain((line for line in pulled if line != create.SUCCESS), made), body)


def _progress(lines: Iterator[Object], body: Object) -> Response:
    """Stream the progress *lines*; when ``stream`` is false, answer with the last line only."""
    if body.get("stream", True):
        return wire.ndjson(_until_error(lines))
    last = deque(_until_error(lines), maxlen=1).pop()
    return wire.json_response(last, 500 if "error" in last else 200, wire.JSON)


def _until_error(lines: Iterator[Object]) -> Iterator[Object]:
    """Yield *lines*; a failure becomes the last line, because the status 200 has been sent."""
    try:
        yield from lines
    except (PullError, create.CreateError) as exc:
        yield {"error": str(exc)}
    except OSError as exc:
        yield {"error": wire.disk_failed(exc)}


def _blob_exists(store: ModelStore, digest: str) -> bool:
    try:
        return store.blob_path(digest).is_file()
    except ValueError as exc:
        raise ApiError(400, str(exc)) from exc


def _tag(store: ModelStore, model: Model) -> Object:
    manifest = model.manifest
    entry: Object = {
        "name": str(model.name),
        "model": str(model.name),
        "modified_at": gojson.timestamp(model.modified_ns),
        "size": manifest.size,
        "digest": manifest.digest.removeprefix("sha256:"),
        "details": details.details(store, manifest),
    }
    try:
        header = details.header_of(store, manifest)
        abilities = details.capabilities(store, manifest)
    except (OSError, ValueError):  # the weights are gone or damaged: list the model without them
        return entry
    for key in ("context_length", "embedding_length"):
        if value := header.integer(key):
            entry["details"][key] = value
    return entry | {"capabilities": abilities}


def _process(store: ModelStore, entry: Loaded) -> Object:
    launch, seconds = entry.launch, entry.expires_at
    if entry.users:  # keep_alive starts when its last answer is complete
        seconds = time.time() + entry.keep_alive
    return {
        "name": str(entry.model.name),
        "model": str(entry.model.name),
        "size": launch.size if launch else 0,
        "digest": entry.model.manifest.digest.removeprefix("sha256:"),
        "details": details.details(store, entry.model.manifest),
        "expires_at": gojson.timestamp(int(seconds * 1e9)),
        "size_vram": 0,
        "context_length": launch.num_ctx if launch else 0,
    }


def _shown(store: ModelStore, body: dict[str, Any]) -> Object:
    text = wire.model_of(body)
    if not text:
        raise ApiError(400, "model is required")
    name = wire.parse_name(text)
    missing = ApiError(404, f"model '{name}' not found")
    model = store.find(name)
    if model is None:
        raise missing
    try:
        answer = details.show(store, model, verbose=bool(body.get("verbose")))
    except FileNotFoundError as exc:
        raise missing from exc
    except ValueError as exc:
        raise ApiError(500, str(exc)) from exc
    if system := body.get("system"):
        answer["system"] = system
    return answer | {"modified_at": gojson.timestamp(model.modified_ns)}
