"""Chats in a conversation: what was said is sent along, and what is said is kept, whatever happens."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from sqlalchemy.exc import SQLAlchemyError

from app.errors import ServiceError, UpstreamRejected, kept
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
from app.services.conversations.rows import Columns, Summary, Turn
from app.services.conversations.store import ConversationStore, Ticket
from app.services.providers import Circuits, ProviderStore
from app.services.settings import SettingsStore

log = logging.getLogger(__name__)

Begun = Callable[[Attempt], None]

USUAL_WINDOW = 4096
"""Tokens that Ollama looks at where nobody says otherwise and the model is not loaded yet."""

_NO_LIMIT = 10**9
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
    ) -> None:
        self._chat = chat
        self._store = store
        self._windows = windows
        self._providers = providers
        self._settings = settings
        self._heartbeats = heartbeats
        self._circuits = circuits

    def answer(self, body: ChatBody, request_id: str) -> Events:
        """Answer *body* as :meth:`~app.services.chat.service.ChatService.answer` does.

        What was said before in the conversation is sent along as far as it fits the model's window. What is
        asked is kept before any provider is, and the answer as what it became.

        :raises ConversationNotFound: when there is no such conversation
        :raises ConversationBusy: when an answer is being made in it
        """
        id = body["conversation_id"] or ""
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
                        self._keep(ticket, record, batch)  # before the client knows: its next question comes
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
        """Return *body* with what the conversation, or else the settings, say where it says nothing."""
        settings = self._settings.all()
        provider = body.get("provider") or conversation["provider"] or settings["default_provider"]
        is_its_own = body.get("provider") in {None, conversation["provider"]}
        model = body.get("model") or (conversation["model"] if is_its_own else None)
        prompts = (body.get("system_prompt"), conversation["system_prompt"])
        prompt = next((prompt for prompt in prompts if prompt is not None), settings["system_prompt"])
        return {**body, "provider": provider, "model": model, "system_prompt": prompt}

    def _within_window(self, body: ChatBody, said: list[Turn], request_id: str, begun: Begun) -> Events:
        """Ask with as many of the turns as fit; with fewer where the provider says that they do not."""
        messages = cast("list[Turn]", with_prompt(cast("list[Message]", said), body["system_prompt"]))
        window = self._window(body)
        error: UpstreamRejected | None = None
        last_dropped = -1
        for share in (1, 2, 4):
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
                window = min(window, sum(map(estimate, messages)))
            else:
                return
        if error is not None:
            raise error

    def _window(self, body: ChatBody) -> int:
        """Return the tokens that the model looks at; a very large number where nothing is known of that."""
        provider = self._providers.get(body["provider"] or "")
        if not provider.is_ollama:
            return _NO_LIMIT
        model = body["model"] or provider.model
        is_away = self._circuits.is_open(provider)  # then nobody asks it anything
        loaded = None if is_away else self._windows.loaded(provider, model)
        defaults = self._settings.all()["model_defaults"]
        options = with_model_defaults({**body, "model": model}, defaults).get("options") or {}
        return max(loaded or 0, options.get("num_ctx") or 0) or USUAL_WINDOW

    def _keep(self, ticket: Ticket, record: _Record, batch: list[Event]) -> None:
        """Keep the answer, once; the last event of *batch* says so where that fails."""
        if record.is_kept:
            return
        record.is_kept = True
        provider, model = record.answerer
        try:
            self._store.finish(
                ticket,
                status=record.status or "failed",  # a fault of this program
                content=record.text(),
                data=record.data(),
                usage=record.usage,
                error=record.error,
                provider=provider,
                model=model,
            )
        except SQLAlchemyError:
            log.exception("an answer of the conversation %s could not be kept", ticket.conversation_id)
            if batch:
                said = f"{batch[-1][1].get('notice', '')} The conversation could not keep this answer."
                batch[-1][1]["notice"] = said.strip()


class _Record:
    """An answer as it is to be kept: the last attempt at it, and how that ended."""

    def __init__(self, provider: str, model: str) -> None:
        self.status = ""  # until it is over
        self.is_kept = False
        self.usage: Usage | None = None
        self.error: Mapping[str, object] | None = None
        self._asked = (provider, model)
        self._attempt: Attempt | None = None

    @property
    def answerer(self) -> tuple[str, str]:
        """The provider and the model that answer; those that were asked until there is an answer."""
        attempt = self._attempt
        if attempt and (attempt.is_started or attempt.is_done):
            return attempt.provider.id, attempt.model
        return self._asked

    def begin(self, attempt: Attempt) -> None:
        """Take note of a new attempt."""
        self._attempt = attempt

    def text(self) -> str:
        """Return what the model has said so far."""
        return self._attempt.text if self._attempt else ""

    def data(self) -> Columns:
        """Return what there is beside the text."""
        if self._attempt is None:
            return {}
        answer = self._attempt.answer
        reason = (answer.finish_reason or "stop") if self.status == "complete" else ""
        found = {
            "thinking": self._attempt.thinking,
            "tool_calls": answer.tool_calls,
            "finish_reason": reason,
        }
        return {name: value for name, value in found.items() if value}

    def is_over(self, name: str, data: dict[str, Any]) -> bool:
        """Tell whether an event is the last one; take note of how the answer ended."""
        if name == "done":
            self.status, self.usage = "complete", data["usage"]
        elif name == "error":
            self.fail(data)
        return bool(self.status)

    def fail(self, error: Mapping[str, object]) -> None:
        """Take note of what ended the answer."""
        self.error = {name: value for name, value in error.items() if name != "request_id"}
        if error["error_type"] == "chat_stopped":
            self.status = "stopped"
        else:
            self.status = "cut" if self.text() else "failed"


def _with_turns(body: ChatBody, turns: list[Turn], dropped: int) -> ChatBody:
    """Return *body* with all that is said as its messages."""
    unsaid = {name: value for name, value in body.items() if name not in _IN_MESSAGES}
    messages = [{name: value for name, value in turn.items() if name not in _NOT_SENT} for turn in turns]
    asked = {**unsaid, "system_prompt": "", "messages": messages, "dropped_messages": dropped}
    return cast("ChatBody", asked)


def _is_about_length(error: UpstreamRejected) -> bool:
    """Tell whether a provider refuses a chat for its length; there is no status of its own for that."""
    return error.details.get("upstream_status") == 413 or bool(_LENGTH.search(error.message))


def _with_id(name: str, data: dict[str, Any], id: str) -> dict[str, Any]:
    return {**data, "conversation_id": id} if name in {"start", "done"} else data
