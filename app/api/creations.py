"""``/api/providers/ollama/create``: create models from an installed model, or from an uploaded file."""

from __future__ import annotations

from typing import Any

from flask import Request, Response, g, request

from app.api import base
from app.body_limits import accepts
from app.extensions import services
from app.schemas.base import ErrorSchema
from app.schemas.creations import Created, CreatedSchema, CreateSchema, Creation
from app.streaming import event_stream

UPLOAD_TYPE = "application/octet-stream"


class Parser(base.Parser):
    """Takes the fields of an upload from the query: the body is the file, which a service reads."""

    def load_json(self, req: Request, schema: Any) -> Any:
        """Return the fields, from the query of an upload or from a JSON body."""
        if req.mimetype == UPLOAD_TYPE:
            return self.load_querystring(req, schema)
        return super().load_json(req, schema)


class Blueprint(base.Blueprint):
    """The views that accept a file."""

    ARGUMENTS_PARSER = Parser()


blp = Blueprint("creations", __name__, url_prefix="/api/providers/ollama", description="Creating models")

_FILE = {UPLOAD_TYPE: {"schema": {"type": "string", "format": "binary"}}}


@blp.post("/create")
@accepts(file_type=UPLOAD_TYPE)
@blp.arguments(
    CreateSchema, example={"model": "pirate", "from": "llama3.2:1b", "system": "You are a pirate."}
)
@blp.response(200, CreatedSchema)
@blp.alt_response(404, schema=ErrorSchema, description="The model of `from` is not installed")
@blp.alt_response(
    409, schema=ErrorSchema, description="The name is taken and `overwrite` is false, or it is protected"
)
@blp.alt_response(413, schema=ErrorSchema, description="The file is larger than BACKEND_MAX_UPLOAD")
@blp.alt_response(
    500, schema=ErrorSchema, description="Ollama could not create the model; `details` tell why"
)
@blp.doc(requestBody={"content": _FILE})
def create_model(body: Creation) -> Created | Response:
    """Create a model from an installed model, or from a GGUF file

    To upload a file, send it as the body with the type `application/octet-stream`. The fields are then query
    parameters: `?model=mine&digest=sha256:...`.
    """
    if request.mimetype == UPLOAD_TYPE:
        order = services.creations.from_file(body, request.stream, request.content_length)
    else:
        order = services.creations.from_model(body)
    if body["stream"]:
        return event_stream(services.creations.events(order, g.request_id))
    return services.creations.create(order)
