"""Answer chats in a conversation: send its earlier messages along, and keep the answer, complete or not."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from app.errors import ServiceError, StorageFailed, UpstreamRejected, kept
from app.schemas.chat import ChatBody
from app.schemas.chat_results import Usage
from app.schemas.messages import Message
from app.services.chat import (
    Attempt,
    ChatService,
    ContextWindows,
    Event,
    Events,
    estimate,
    new_messages,
    with_model_defaults,
    with_prompt,
)
from app.services.conversations.fitting import fit
from app.services.conversations.heartbeats import Heartbeats
from app.services.conversations.late import LateAnswers
from app.services.conversations.rows import Columns, Summary, Turn
from app.services.conversations.store import ConversationStore, Ticket
from app.services.providers import Circuits, ProviderStore
from app.services.settings import SettingsStore
from app.stopping import stopping

log = logging.getLogger(__name__)

Begun = Callable[[Attempt], None]

USUAL_WINDOW = 4096
"""Ollama's context window, in tokens, for a model that is not loaded, when no `num_ctx` is given."""

_LATE = "The answer will be saved in the conversation as soon as the database can be written."
_LATE_IF_ALIVE = f"{_LATE} If the backend ends before that, the answer is lost."
_NO_LIMIT = 10**9  # tokens
# Words in the error of a provider that refuses a chat because it is too long.
_LENGTH = re.compile(r"context|too long|too large|length|exceed|maximum|tokens", re.IGNORECASE)
_IN_MESSAGES = ("message", "images", "system_prompt")
_NOT_SENT = ("status", "seq", "finish_reason")


class ConversationChat:
    """Answers chats that name a conversation."""

    def __init__(
        self,
        chat: ChatService,
        store: ConversationStore,
        windows: ContextWindows,
        providers: ProviderStore,
        settings: SettingsStore,
        heartbeats: Heartbeats,
        circuits: Circuits,
        late: LateAnswers,
    ) -> None:
        self._chat = chat
        self._store = store
        self._windows = windows
        self._providers = providers
        self._settings = settings
        self._heartbeats = heartbeats
        self._circuits = circuits
        self._late = late

    def answer(self, body: ChatBody, request_id: str) -> Events:
        """Answer *body* as :meth:`~app.services.chat.service.ChatService.answer` does.

        The provider also gets the earlier messages that fit the model's window. The new messages are kept
        before the provider is asked, and the answer is kept with its outcome.

        :raises ConversationNotFound: when there is no such conversation
        :raises ConversationBusy: when another answer is under way in it
        """
        id = body["conversation_id"] or ""
        self._late.settle(id)
        asked = self._asked(body, self._store.get(id, limit=0))
        provider, model = asked["provider"] or "", asked["model"] or ""
        self._providers.get_enabled(provider)
        ticket = self._store.begin(id, new_messages(asked), provider, model)
        record = _Record(provider, model)
        try:
            with self._heartbeats.of(ticket, record.text):
                said = [turn for turn in self._store.turns(id) if turn["seq"] < ticket.seq]
                for batch in self._within_window(asked, said, request_id, record.begin):
                    if batch and record.is_over(*batch[-1]):
                        # Before the client gets the last event: it may ask its next question at once.
                        self._keep(ticket, record, batch)
                    yield [(name, _with_id(name, data, id)) for name, data in batch]
        except ServiceError as exc:
            record.fail(kept(exc))
            raise
        except (GeneratorExit, KeyboardInterrupt):
            record.status = record.status or "stopped"
            raise
        finally:
            self._keep(ticket, record, [])

    def _asked(self, body: ChatBody, conversation: Summary) -> ChatBody:
        """Fill in the provider, model and system prompt from the conversation, or else from the settings."""
        settings = self._settings.all()
        provider = body.get("provider") or conversation["provider"] or settings["default_provider"]
        is_its_own = body.get("provider") in {None, conversation["provider"]}
        model = body.get("model") or (conversation["model"] if is_its_own else None)
        prompts = (body.get("system_prompt"), conversation["system_prompt"])
        prompt = next((prompt for prompt in prompts if prompt is not None), settings["system_prompt"])
        return {**body, "provider": provider, "model": model, "system_prompt": prompt}

    def _within_window(self, body: ChatBody, said: list[Turn], request_id: str, begun: Begun) -> Events:
        """Send the turns that fit the window; send fewer when the provider refuses them as too long."""
        messages = cast("list[Turn]", with_prompt(cast("list[Message]", said), body["system_prompt"]))
        window = self._window(body)
        error: UpstreamRejected | None = None
        last_dropped = -1
        for share in (1, 2, 4):  # all of the window, then a half and a quarter of it
            chosen, dropped = fit(messages, window=window // share, reserve=window // share // 4)
            if dropped == last_dropped:
                break
            last_dropped = dropped
            try:
                yield from self._chat.answer(_with_turns(body, chosen, dropped), request_id, begun)
            except UpstreamRejected as exc:
                error = exc
                if not _is_about_length(exc):
                    break
                window = min(window, sum(map(estimate, messages)))  # smaller than what was refused
            else:
                return
        if error is not None:
            raise error

    def _window(self, body: ChatBody) -> int:
        """Return the model's context window in tokens; a very large number when it is not known."""
        provider = self._providers.get(body["provider"] or "")
        if not provider.is_ollama:
            return _NO_LIMIT
        model = body["model"] or provider.model
        is_away = self._circuits.is_open(provider)  # then asking Ollama would only cost time
        loaded = None if is_away else self._windows.loaded(provider, model)
        defaults = self._settings.all()["model_defaults"]
        options = with_model_defaults({**body, "model": model}, defaults).get("options") or {}
        return max(loaded or 0, options.get("num_ctx") or 0) or USUAL_WINDOW

    def _keep(self, ticket: Ticket, record: _Record, batch: list[Event]) -> None:
        """Keep the answer, once; if that has to wait, add a notice to the last event of *batch*."""
        if record.is_kept:
            return
        record.is_kept = True
        provider, model = record.answerer
        answer: Columns = {
            "status": record.status or "failed",  # no status: a fault of this program ended the answer
            "content": record.text(),
            "data": record.data(),
            "usage": record.usage,
            "error": record.error,
            "provider": provider,
            "model": model,
        }
        if stopping.is_set():  # a locked database must keep neither the client nor the stop waiting
            self._late.keep(ticket, answer)
            return
        try:
            self._store.finish(ticket, **cast("Any", answer))
        except StorageFailed as exc:
            log.warning("an answer of %s is saved later: %s", ticket.conversation_id, exc.message)
            is_safe = self._late.keep(ticket, answer)
            if batch:
                said = f"{batch[-1][1].get('notice', '')} {_LATE if is_safe else _LATE_IF_ALIVE}"
                batch[-1][1]["notice"] = said.strip()


class _Record:
    """The answer to keep: the last attempt, and how it ended."""

    def __init__(self, provider: str, model: str) -> None:
        self.status = ""  # until the answer is over
        self.is_kept = False
        self.usage: Usage | None = None
        self.error: Mapping[str, object] | None = None
        self._asked = (provider, model)
        self._attempt: Attempt | None = None

    @property
    def answerer(self) -> tuple[str, str]:
        """The provider and the model that answer; until there is an answer, those that were asked."""
        attempt = self._attempt
        if attempt and (attempt.is_started or attempt.is_done):
            return attempt.provider.id, attempt.model
        return self._asked

    def begin(self, attempt: Attempt) -> None:
        """Start to record *attempt*."""
        self._attempt = attempt

    @property
    def _told(self) -> Attempt | None:
        """The attempt whose answer the client sees; it sees nothing of a failed answer without a stream."""
        attempt = self._attempt
        return attempt if attempt and (attempt.is_streamed or attempt.is_done) else None

    def text(self) -> str:
        """Return the text of the answer so far."""
        return self._told.text if self._told else ""

    def data(self) -> Columns:
        """Return the other parts of the answer: thinking, tool calls, and the finish reason."""
        attempt = self._told
        if attempt is None:
            return {}
        answer = attempt.answer
        reason = (answer.finish_reason or "stop") if self.status == "complete" else ""
        found = {
            "thinking": attempt.thinking,
            "tool_calls": answer.tool_calls,
            "finish_reason": reason,
        }
        return {name: value for name, value in found.items() if value}

    def is_over(self, name: str, data: dict[str, Any]) -> bool:
        """Record the outcome if the event is the last one, and tell whether it is."""
        if name == "done":
            self.status, self.usage = "complete", data["usage"]
        elif name == "error":
            self.fail(data)
        return bool(self.status)

    def fail(self, error: Mapping[str, object]) -> None:
        """Record the error that ended the answer."""
        self.error = {name: value for name, value in error.items() if name != "request_id"}
        if error["error_type"] == "chat_stopped":
            self.status = "stopped"
        else:
            self.status = "cut" if self.text() else "failed"


def _with_turns(body: ChatBody, turns: list[Turn], dropped: int) -> ChatBody:
    """Return *body* with *turns*, which include its new messages, as its messages."""
    unsaid = {name: value for name, value in body.items() if name not in _IN_MESSAGES}
    messages = [{name: value for name, value in turn.items() if name not in _NOT_SENT} for turn in turns]
    asked = {**unsaid, "system_prompt": "", "messages": messages, "dropped_messages": dropped}
    return cast("ChatBody", asked)


def _is_about_length(error: UpstreamRejected) -> bool:
    """Tell whether a provider refuses a chat because it is too long; not every provider says so with 413."""
    return error.details.get("upstream_status") == 413 or bool(_LENGTH.search(error.message))


def _with_id(name: str, data: dict[str, Any], id: str) -> dict[str, Any]:
    return {**data, "conversation_id": id} if name in {"start", "done"} else data
