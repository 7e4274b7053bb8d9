"""Create models, from an installed model or from an uploaded file."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from app.errors import InvalidRequest, ServiceError
from app.schemas.creations import Created, Creation, CreationOrder
from app.schemas.models import InstalledModel
from app.services.models.protection import Protection
from app.services.models.upload import Upload, UploadService
from app.services.ollama import OllamaServers, check_name, find_model

Events = Generator[list[tuple[str, dict[str, Any]]], None, None]


class CreationService:
    """Creates models on the Ollama server."""

    def __init__(self, ollamas: OllamaServers, uploads: UploadService, protection: Protection) -> None:
        self._ollamas = ollamas
        self._protection = protection
        self._uploads = uploads

    def from_model(self, wanted: Creation) -> CreationOrder:
        """Return the order to create a model from an installed model.

        :raises ModelNotFound: when the model in ``from`` is not installed: Ollama itself would download it
        :raises ModelExists: when the new name is taken
        """
        order = _order(wanted)
        if "digest" in wanted:
            raise _bad_field("digest", "Only a file has a digest: send one as application/octet-stream.")
        if "origin" not in wanted:
            raise _bad_field("from", "Name the installed model to make it from, or send a file.")
        origin = check_name(wanted["origin"])
        ollama = self._ollamas.main()
        listed = ollama.list()["models"]
        if find_model(listed, str(origin)) is None:
            raise ollama.model_not_found(str(origin))
        self._check_free(wanted, listed)
        return {**order, "from": str(origin)}

    def from_file(self, wanted: Creation, upload: Upload, size: int | None) -> CreationOrder:
        """Send a GGUF file to Ollama, and return the order to create a model from it.

        :param size: the file's bytes, from the request's ``Content-Length``
        :raises InvalidUpload: when the file is damaged, or is no GGUF model
        :raises ModelExists: when the new name is taken; then the file is not sent to Ollama
        """
        order = _order(wanted)
        if "origin" in wanted:
            raise _bad_field("from", "Make it from a model or from a file, not from both.")

        def check() -> None:
            self._check_free(wanted, self._ollamas.main().list()["models"])

        digest = self._uploads.push(upload, size, wanted.get("digest"), check)
        return {**order, "files": {"model.gguf": digest}}

    def _check_free(self, wanted: Creation, listed: list[InstalledModel]) -> None:
        self._protection.check_free(check_name(wanted["model"]), listed, overwrite=wanted["overwrite"])

    def create(self, order: CreationOrder) -> Created:
        """Create the model, and return the lines of Ollama's progress."""
        log = [part for part in self._ollamas.main().create(**order) if part]
        return _created(order, log)

    def events(self, order: CreationOrder, request_id: str) -> Events:
        """Create the model; yield `progress` events, then `done` or `error`.

        :raises ServiceError: for a failure before the first `progress`, so that its HTTP status is kept
        """
        log: list[dict[str, Any]] = []
        lines = self._ollamas.main().create(**order)
        try:
            for part in lines:
                if part is not None:
                    log.append(part)
                yield [("progress", part)] if part else []
            yield [("done", {**_created(order, log)})]
        except ServiceError as exc:
            if not log:
                raise
            yield [("error", exc.body(request_id))]
        finally:
            lines.close()


def _order(wanted: Creation) -> CreationOrder:
    """Return the fields of the order that are the same for a model and for a file."""
    order: CreationOrder = {"model": str(check_name(wanted["model"]))}
    if "system" in wanted:
        order["system"] = wanted["system"]
    if "template" in wanted:
        order["template"] = wanted["template"]
    if "parameters" in wanted:
        order["parameters"] = wanted["parameters"]
    if "license" in wanted:
        order["license"] = wanted["license"]
    return order


def _created(order: CreationOrder, log: list[dict[str, Any]]) -> Created:
    return {"model": order["model"], "created": True, "status_log": log}


def _bad_field(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {message}", details={field: [message]})
