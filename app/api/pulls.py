"""``/api/providers/ollama/pull`` and ``pulls``: downloads that go on whoever waits for them."""

from __future__ import annotations

from typing import Any

from flask import Response, g, jsonify, url_for

from app.api.base import Blueprint
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
@blp.alt_response(
    "2XX", schema=PlanSchema, description="200 with `dry_run`: what would be fetched and needed"
)
@blp.alt_response(202, schema=PullSchema, description="With `background`: the pull")
@blp.alt_response(422, schema=ErrorSchema, description="The Idempotency-Key came with another body before")
@blp.alt_response(500, schema=ErrorSchema, description="The pull failed; `details` tell why")
@blp.alt_response(503, schema=ErrorSchema, description="Ollama is not running")
@blp.alt_response(504, schema=ErrorSchema, description="It takes longer; the pull goes on")
@blp.alt_response(507, schema=ErrorSchema, description="It does not fit on the disk; nothing is begun")
def pull_model(body: PullRequest, headers: dict[str, Any]) -> Response | dict[str, Any]:
    """Download a model, and wait until it is there

    A model that is being pulled already is joined. The pull goes on whoever waits for it: a client that
    leaves, a restart of this server or of Ollama do not end it. With `"dry_run": true` nothing is pulled: the
    answer is a `Plan`. With an `Idempotency-Key` the same request can be sent again and answers for the same
    pull, also when that is over.
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
    """Get a pull, with its log"""
    return services.pulls.get(id)


@blp.get("/pulls/<id>/events")
@blp.arguments(LastEventSchema(), location="headers")
@blp.response(200, content_type="text/event-stream")
@blp.alt_response(204, description="There is nothing after Last-Event-ID, and nothing will come")
def watch_pull(headers: dict[str, Any], id: str) -> Response:
    """Watch a pull, from its beginning or from where one was

    `progress` events, then exactly one of `done`, `error` or `cancelled`. Each has an id; come back with the
    last one in the header `Last-Event-ID`, and nothing is missed or told twice.
    """
    return event_stream(services.pulls.watch(id, headers["last_event_id"], g.request_id))


@blp.post("/pulls/<id>/pause")
@blp.response(200, PullSchema)
@blp.alt_response(409, schema=ErrorSchema, description="It is over")
def pause_pull(id: str) -> PullSummary:
    """Pause a pull; what is here is kept"""
    return services.pulls.pause(id)


@blp.post("/pulls/<id>/resume")
@blp.response(200, PullSchema)
@blp.alt_response(409, schema=ErrorSchema, description="It is done")
def resume_pull(id: str) -> PullSummary:
    """Go on with a pull that is paused, failed or was cancelled; of the latter two, a new one is made"""
    return services.pulls.resume(id)


@blp.post("/pulls/<id>/cancel")
@blp.response(200, PullSchema)
@blp.alt_response(409, schema=ErrorSchema, description="It is over")
def cancel_pull(id: str) -> PullSummary:
    """Cancel a pull; installed models stay as they are"""
    return services.pulls.cancel(id)


@blp.delete("/pulls/<id>")
@blp.response(204)
@blp.alt_response(409, schema=ErrorSchema, description="It is not over")
def delete_pull(id: str) -> None:
    """Forget a pull that is over"""
    services.pulls.delete(id)
