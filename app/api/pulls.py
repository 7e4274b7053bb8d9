"""``/api/providers/ollama/pull`` and ``pulls``: downloads, which do not need a waiting client."""

from __future__ import annotations

from typing import Any

from flask import Response, g, jsonify, url_for

from app.api.base import Blueprint, or_stream
from app.extensions import services
from app.schemas.base import ErrorSchema
from app.schemas.idempotency import IdempotencySchema
from app.schemas.plan import PlanSchema
from app.schemas.pulls import (
    LastEventSchema,
    PullList,
    PullListSchema,
    PullRequest,
    PullRequestSchema,
    PullResultSchema,
    PullSchema,
    PullSummary,
    PullValues,
)
from app.streaming import event_stream, last_event

blp = Blueprint(
    "pulls", __name__, url_prefix="/api/providers/ollama", description="Downloads of Ollama's models"
)


@blp.post("/pull")
@blp.arguments(PullRequestSchema(), example={"model": "llama3.2:1b"})
@blp.arguments(IdempotencySchema(), location="headers")
@blp.response(200, PullResultSchema)
@blp.doc(responses=or_stream(PullResultSchema))
@blp.alt_response(
    "2XX", schema=PlanSchema, description="200 with `dry_run`: what would be downloaded and needed"
)
@blp.alt_response(202, schema=PullSchema, description="With `background`: the pull")
@blp.alt_response(
    422, schema=ErrorSchema, description="The Idempotency-Key was used before with another body"
)
@blp.alt_response(500, schema=ErrorSchema, description="The pull failed; `details` tell why")
@blp.alt_response(503, schema=ErrorSchema, description="Ollama is not running")
@blp.alt_response(504, schema=ErrorSchema, description="The pull takes longer, and goes on")
@blp.alt_response(507, schema=ErrorSchema, description="The model does not fit; no pull is started")
def pull_model(body: PullRequest, headers: dict[str, Any]) -> Response | dict[str, Any]:
    """Pull a model, and wait until the pull is finished

    If the model is already being pulled, the request waits for that pull. A pull does not end when the client
    leaves, or when this server or Ollama is restarted. With `"dry_run": true` nothing is pulled, and the
    answer is a `Plan`. With an `Idempotency-Key` a client can repeat the request: it gets the same pull
    again, even a finished one.
    """
    if body["dry_run"]:
        plan = services.plans.plan(body["model"], insecure=body["insecure"], num_ctx=body.get("num_ctx"))
        return jsonify(PlanSchema().dump(plan))
    key = headers["idempotency_key"]
    id = services.idempotency.once("pull", key, body, lambda: _start(body))["id"]
    if body["background"]:
        return _accepted(services.pulls.get(id))
    if body["stream"]:
        return event_stream(services.pulls.watch(id, 0, g.request_id))
    return last_event(services.pulls.wait(id, services.settings.timeouts.pull))


def _start(body: PullRequest) -> dict[str, str]:
    pull = services.pulls.start(
        body["model"], insecure=body["insecure"], now=body["now"], force=body["force"]
    )
    return {"id": pull["id"]}


def _accepted(pull: PullValues) -> Response:
    response = jsonify(PullSchema().dump(pull))
    response.status_code = 202
    response.headers["Location"] = url_for("pulls.get_pull", id=pull["id"])
    return response


@blp.get("/pulls")
@blp.response(200, PullListSchema)
def list_pulls() -> PullList:
    """List the pulls, the newest first"""
    pulls = services.pulls.all()
    return {"pulls": pulls, "total": len(pulls)}


@blp.get("/pulls/<id>")
@blp.response(200, PullSchema)
def get_pull(id: str) -> PullValues:
    """Get a pull, with the lines of its progress"""
    return services.pulls.get(id)


@blp.get("/pulls/<id>/events")
@blp.arguments(LastEventSchema(), location="headers")
@blp.response(200)
@blp.doc(responses=or_stream())
@blp.alt_response(204, description="The pull is finished, and has no event after Last-Event-ID")
def watch_pull(headers: dict[str, Any], id: str) -> Response:
    """Watch a pull, from its beginning or after a certain event

    The stream has `progress` events, then exactly one `done`, `error` or `cancelled`. Each event of the pull
    has an id. An `error` without an id ends only the stream, such as when the server stops. To continue a
    stream, send the last id in the header `Last-Event-ID`: no event is lost or repeated.
    """
    return event_stream(services.pulls.watch(id, headers["last_event_id"], g.request_id))


@blp.post("/pulls/<id>/pause")
@blp.response(200, PullSchema)
@blp.alt_response(409, schema=ErrorSchema, description="The pull is finished")
def pause_pull(id: str) -> PullSummary:
    """Pause a pull; the downloaded bytes are kept"""
    return services.pulls.pause(id)


@blp.post("/pulls/<id>/resume")
@blp.response(200, PullSchema)
@blp.alt_response(409, schema=ErrorSchema, description="The pull is done")
def resume_pull(id: str) -> PullSummary:
    """Resume a paused pull, or start a new pull for one that failed or was cancelled"""
    return services.pulls.resume(id)


@blp.post("/pulls/<id>/cancel")
@blp.response(200, PullSchema)
@blp.alt_response(409, schema=ErrorSchema, description="The pull is finished")
def cancel_pull(id: str) -> PullSummary:
    """Cancel a pull; installed models stay as they are"""
    return services.pulls.cancel(id)


@blp.delete("/pulls/<id>")
@blp.response(204)
@blp.alt_response(409, schema=ErrorSchema, description="The pull is not finished")
def delete_pull(id: str) -> None:
    """Delete a finished pull from the list; the model stays"""
    services.pulls.delete(id)
