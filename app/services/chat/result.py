"""Make the response, and the record for the usage, from a finished attempt."""

from __future__ import annotations

import time
from typing import TypedDict, cast

from app.format_checker import Format, check_answer
from app.schemas.chat_results import ChatResult
from app.services.chat.attempts import Attempt
from app.services.chat.context_window import context, measure
from app.services.chat.dialects.answers import Timing
from app.services.usage import CallRecord


class Remarks(TypedDict, total=False):
    """The deviations from the request, as the client reads them."""

    notice: str
    fallback_used: bool
    first_error: dict[str, object]


def result(attempt: Attempt, window: int | None) -> ChatResult:
    """Return the whole response for the client.

    :param window: the model's context window in tokens, if it is known
    """
    answer, body, text = attempt.answer, attempt.body, attempt.text
    usage = measure(text, answer.usage)
    found: dict[str, object] = {
        "response": text,
        "provider": attempt.provider.id,
        "model": attempt.model,
        "tokens": usage["completion_tokens"],
        "response_time": round(attempt.seconds, 3),
        "usage": usage,
        "finish_reason": answer.finish_reason or "stop",
        **timing(attempt),
        "context": context(body["messages"], usage, window, body.get("dropped_messages", 0)),
    }
    if answer.tool_calls:
        found["tool_calls"] = answer.tool_calls
    told = cast("ChatResult", found)
    if (wanted := body.get("format")) and not answer.tool_calls:
        _add_verdict(attempt, told, wanted)
    _add_thinking(attempt, told)
    _add_logprobs(attempt, told)
    _explain(attempt, told)
    return cast("ChatResult", {**told, **remarks(attempt), "request_id": attempt.request_id})


def timing(attempt: Attempt) -> Timing:
    """Return the time to the first token and the speed of the others, if they are known.

    The provider's own values replace those measured here.
    """
    begun, usage = attempt.first_token_at, attempt.answer.usage
    if not attempt.is_streamed or begun is None:
        return attempt.answer.timing
    found: Timing = {"time_to_first_token": round(begun - attempt.started, 4)}
    # An answer that came in one read says nothing about the speed of the model.
    if attempt.reads > 1 and usage and usage["completion_tokens"] > 1:
        seconds = (attempt.ended_at or time.monotonic()) - begun
        found["tokens_per_second"] = round(usage["completion_tokens"] / max(seconds, 1e-6), 1)
    return {**found, **attempt.answer.timing}


def record(attempt: Attempt) -> CallRecord:
    """Return the record of an attempt for the usage."""
    usage = measure(attempt.text, attempt.answer.usage)
    times = timing(attempt)
    return CallRecord(
        provider=attempt.provider.id,
        model=attempt.model,
        endpoint="chat",
        latency=attempt.seconds,
        outcome="stopped" if attempt.outcome == "chat_stopped" else attempt.outcome,
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        estimated=usage["estimated"] and attempt.is_done,
        time_to_first_token=times.get("time_to_first_token"),
        tokens_per_second=times.get("tokens_per_second"),
        load_time=times.get("load_time"),
        fallback=attempt.first_error is not None,
        streamed=attempt.is_streamed,
        request_id=attempt.request_id,
    )


def remarks(attempt: Attempt) -> Remarks:
    """Return the notices of the attempt, and the error that led to the fallback."""
    found: Remarks = {"notice": " ".join(attempt.notices)} if attempt.notices else {}
    if attempt.first_error is not None:
        found["fallback_used"] = True
        found["first_error"] = attempt.first_error.body(attempt.request_id)
    return found


def _add_verdict(attempt: Attempt, found: ChatResult, wanted: Format) -> None:
    """Tell whether the answer follows `format`; the answer stays as it is, also if that cannot be checked."""
    verdict = check_answer(wanted, found["response"])
    found["format_valid"] = verdict.is_valid
    if verdict.is_valid is False:
        found["format_error"] = verdict.reason
    elif verdict.is_valid is None:
        attempt.notices.append(f"The answer could not be checked against `format`. {verdict.reason}")


def _add_thinking(attempt: Attempt, found: ChatResult) -> None:
    if not attempt.thinking:
        return
    found["thinking"] = attempt.thinking
    if found["response"].strip() or attempt.answer.tool_calls:
        return
    if found["finish_reason"] == "length":
        found["thinking_exhausted"] = True
        attempt.notices.append(
            "The model spent all its tokens on thinking. Allow more tokens (options.num_predict or "
            "options.num_ctx; max_tokens for other providers), or ask with think: false."
        )
    else:
        attempt.notices.append("The model thought, but gave no answer. Ask again, or with think: false.")


def _add_logprobs(attempt: Attempt, found: ChatResult) -> None:
    if not attempt.body.get("logprobs"):
        return
    found["logprobs"] = attempt.answer.logprobs
    if not attempt.answer.logprobs:
        attempt.notices.append(f"{attempt.provider.name} sent no logprobs.")


def _explain(attempt: Attempt, found: ChatResult) -> None:
    """Add notices about a truncated prompt, a reload of the model, and invalid tool calls."""
    notices, window = attempt.notices, found["context"]["window"]
    if found["context"]["truncated"] and not attempt.body.get("dropped_messages"):
        size = f"the window of {window} tokens" if window else "the model's window"
        mend = (
            "Ask with a larger options.num_ctx, or with truncate: false to get an error instead."
            if attempt.provider.is_ollama
            else "Send fewer messages, or use a model with a larger window."
        )
        notices.append(f"The messages did not fit {size}, so the model did not read the oldest part. {mend}")
    before, loaded = attempt.dialect.window_before, attempt.answer.timing.get("load_time", 0)
    if before and window and before != window and loaded > 0.1:
        notices.append(f"The model was loaded anew ({loaded} s), because its window was {before} tokens.")
    if any(isinstance(call["function"]["arguments"], str) for call in attempt.answer.tool_calls):
        notices.append("The model's arguments of a tool call are not a JSON object; they stay text.")
