"""One request to one provider, and what it is answered with."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from app.errors import ServiceError
from app.services.chat.answer_format import check_format
from app.services.chat.context_window import context
from app.services.chat.dialects.base import Answer, Route
from app.services.chat.tokens import measure
from app.services.providers.store import Provider
from app.services.usage.log import CallRecord
from app.upstream.reading import Body, Register

Json = dict[str, Any]


@dataclass
class Call:
    """One request to one provider.

    :param body: the chat that it is for, with all its messages
    :param needs: the capabilities that a model must have for it
    """

    provider: Provider
    model: str
    model_is_named: bool
    body: Json
    needs: frozenset[str]
    request: Json
    request_id: str
    route: Route
    answer: Answer
    is_native: bool = False
    notices: list[str] = field(default_factory=list)
    first_error: ServiceError | None = None
    error: ServiceError | None = None
    started: float = field(default_factory=time.monotonic)
    first_token_at: float | None = None
    ended_at: float | None = None
    reads: int = 0  # that brought something of the answer
    is_done: bool = False
    loaded_before: int | None = None

    @property
    def is_streamed(self) -> bool:
        """Whether the answer comes as a stream."""
        return bool(self.request.get("stream"))

    @property
    def outcome(self) -> str:
        """How it ended: `ok`, an error's slug, or `client_left`."""
        if self.is_done:
            return "ok"
        return self.error.error_type if self.error else "client_left"

    @property
    def seconds(self) -> float:
        """How long it took, or takes so far."""
        return (self.ended_at or time.monotonic()) - self.started

    @property
    def text(self) -> str:
        """What the model has said so far."""
        return "".join(self.answer.text)

    def open(self, register: Register) -> Body:
        """Send the request."""
        return self.route.open(self.model, self.request, register)

    def start(self, *, is_early: bool = False) -> Json:
        """Return what a stream begins with.

        :param is_early: whether the provider has said nothing yet: another model may have to be chosen
        """
        start: Json = {"request_id": self.request_id, "provider": self.provider.id}
        if not is_early or self.model_is_named:
            start["model"] = self.model
        return {**start, **self._remarks()}

    def result(self, window: int | None) -> Json:
        """Return the whole response.

        :param window: the tokens that the model looks at, where that is known
        """
        answer, response, thinking = self.answer, self.text, "".join(self.answer.thoughts)
        usage = measure(response, answer.usage)
        found: Json = {
            "response": response,
            "provider": self.provider.id,
            "model": self.model,
            "tokens": usage["completion_tokens"],
            "response_time": round(self.seconds, 3),
            "usage": usage,
            "finish_reason": answer.finish_reason or "stop",
            "request_id": self.request_id,
            **self.timing(),
        }
        dropped = self.body.get("dropped_messages", 0)
        found["context"] = context(self.body["messages"], usage, window, dropped)
        if thinking:
            found["thinking"] = thinking
            found |= self._of_thinking(found)
        if answer.tool_calls:
            found["tool_calls"] = answer.tool_calls
        if self.body.get("format") and not answer.tool_calls:
            found |= check_format(self.body["format"], response)
        found |= self._of_logprobs()
        self._explain(found)
        return {**found, **self._remarks()}

    def timing(self) -> Json:
        """Return how long the first token took and how fast the others came, as far as that is known."""
        begun, usage = self.first_token_at, self.answer.usage
        if not self.is_streamed or begun is None:
            return self.answer.timing
        found: Json = {"time_to_first_token": round(begun - self.started, 4)}
        # What came all at once tells nothing of how fast it was made.
        if self.reads > 1 and usage and usage["completion_tokens"] > 1:
            seconds = (self.ended_at or time.monotonic()) - begun
            found["tokens_per_second"] = round(usage["completion_tokens"] / max(seconds, 1e-6), 1)
        return {**found, **self.answer.timing}

    def record(self) -> CallRecord:
        """Return what is to be kept of it when it is over."""
        usage = measure(self.text, self.answer.usage)
        timing = self.timing()
        return CallRecord(
            provider=self.provider.id,
            model=self.model,
            endpoint="chat",
            latency=self.seconds,
            outcome="stopped" if self.outcome == "chat_stopped" else self.outcome,
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
            estimated=usage["estimated"] and self.is_done,
            time_to_first_token=timing.get("time_to_first_token"),
            tokens_per_second=timing.get("tokens_per_second"),
            load_time=timing.get("load_time"),
            fallback=self.first_error is not None,
            streamed=self.is_streamed,
            request_id=self.request_id,
        )

    def _of_thinking(self, found: Json) -> Json:
        if found["response"].strip() or self.answer.tool_calls:
            return {}
        if found["finish_reason"] == "length":
            self.notices.append(
                "The model spent all its tokens on thinking. Give it more of them (options.num_predict or "
                "options.num_ctx; max_tokens elsewhere), or ask with think: false."
            )
            return {"thinking_exhausted": True}
        self.notices.append("The model only thought, and said nothing. Ask again, or with think: false.")
        return {}

    def _of_logprobs(self) -> Json:
        if not self.body.get("logprobs"):
            return {}
        if not self.answer.logprobs:
            self.notices.append(f"{self.provider.name} told no logprobs.")
        return {"logprobs": self.answer.logprobs}

    def _explain(self, found: Json) -> None:
        """Say what else the user ought to know."""
        window = found["context"]["window"]
        if found["context"]["truncated"] and not self.body.get("dropped_messages"):
            self.notices.append(
                f"The messages did not fit the window of {window} tokens, so the oldest part was not read. "
                "Ask with a larger options.num_ctx, or with truncate: false to have this as an error."
            )
        loaded = self.answer.timing.get("load_time", 0)
        if self.loaded_before and window and self.loaded_before != window and loaded > 0.1:
            self.notices.append(
                f"The model was loaded anew, for its window was {self.loaded_before} tokens: {loaded} s."
            )
        if any(isinstance(call["function"]["arguments"], str) for call in self.answer.tool_calls):
            self.notices.append("The model wrote arguments of a tool call that are no JSON object.")

    def _remarks(self) -> Json:
        remarks: Json = {"notice": " ".join(self.notices)} if self.notices else {}
        if self.first_error is not None:
            remarks["fallback_used"] = True
            remarks["first_error"] = self.first_error.body(self.request_id)
        return remarks


Event = tuple[str, Json]
