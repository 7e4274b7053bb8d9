"""Chats that go on: what was said before is sent along, and what is said is kept."""

from __future__ import annotations

import logging
import re
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.errors import ServiceError, UpstreamRejected, kept
from app.services.chat.attempt import Event
from app.services.chat.attempts import new_messages, with_defaults, with_prompt
from app.services.chat.context_window import Windows
from app.services.chat.service import ChatService, Events
from app.services.chat.tokens import estimate
from app.services.conversations.fitting import fit
from app.services.conversations.heartbeats import Heartbeats
from app.services.conversations.store import ConversationStore, Ticket
from app.services.providers.circuits import Circuits
from app.services.providers.store import ProviderStore
from app.services.settings import SettingsStore

log = logging.getLogger(__name__)

Json = dict[str, Any]

USUAL_WINDOW = 4096
"""Tokens that Ollama looks at where nobody says otherwise and the model is not loaded yet."""

_NO_LIMIT = 10**9
_LENGTH = re.compile(r"context|too long|too large|length|exceed|maximum|tokens", re.IGNORECASE)
_IN_MESSAGES = ("message", "images", "system_prompt")
_IN_DATA = ("thinking", "tool_calls", "finish_reason")


class ConversationChat:
    """Answers chats that name a conversation; the others pass."""

    def __init__(
        self,
        chat: ChatService,
        store: ConversationStore,
        windows: Windows,
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

    def answer(self, body: Json, request_id: str) -> Events:
        """Answer *body* as :meth:`~app.services.chat.service.ChatService.answer` does.

        With a `conversation_id`, what was said before is sent along as far as it fits the model's window;
        what is asked is kept before anybody is, and the answer as what it became.

        :raises ConversationNotFound: when there is no such conversation
        :raises ConversationBusy: when an answer is being made in it
        """
        id = body.get("conversation_id")
        if not id:
            yield from self._chat.answer(body, request_id)
            return
        conversation = self._store.get(id, limit=0)
        asked = self._asked(body, conversation)
        provider, model = asked["provider"], asked["model"] or ""
        self._providers.get_enabled(provider)
        ticket = self._store.begin(id, new_messages(asked), provider, model)
        record = _Record(provider, model)
        try:
            with self._heartbeats.of(ticket, record.text):
                said = [turn for turn in self._store.turns(id) if turn["seq"] < ticket.seq]
                for batch in self._within_window(
                    asked, with_prompt(said, asked["system_prompt"]), request_id
                ):
                    record.take(batch)
                    if record.status:  # kept before the client knows: its next question comes at once
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

    def _asked(self, body: Json, conversation: Json) -> Json:
        """Return *body* with what the conversation, or else the settings, say where it says nothing."""
        settings = self._settings.all()
        provider = body.get("provider") or conversation["provider"] or settings["default_provider"]
        is_its_own = body.get("provider") in {None, conversation["provider"]}
        model = body.get("model") or (conversation["model"] if is_its_own else None)
        prompts = (body.get("system_prompt"), conversation["system_prompt"])
        prompt = next((prompt for prompt in prompts if prompt is not None), settings["system_prompt"])
        return {**body, "provider": provider, "model": model, "system_prompt": prompt}

    def _within_window(self, body: Json, messages: list[Json], request_id: str) -> Events:
        """Ask with as many of *messages* as fit; with fewer where the provider says that they do not."""
        window = self._window(body)
        unsaid = {name: value for name, value in body.items() if name not in _IN_MESSAGES}
        error: UpstreamRejected | None = None
        last_dropped = -1
        for share in (1, 2, 4):
            chosen, dropped = fit(messages, window=window // share, reserve=window // share // 4)
            if dropped == last_dropped:
                break
            last_dropped = dropped
            asked = {
                **unsaid,
                "system_prompt": "",
                "messages": [_plain(message) for message in chosen],
                "dropped_messages": dropped,
            }
            try:
                yield from self._chat.answer(asked, request_id)
            except UpstreamRejected as exc:
                error = exc
                if not _is_about_length(exc):
                    break
                window = min(window, sum(map(estimate, messages)))
            else:
                return
        if error is not None:
            raise error

    def _window(self, body: Json) -> int:
        """Return the tokens that the model looks at; a very large number where nothing is known of that."""
        provider = self._providers.get(body["provider"])
        if not provider.is_ollama:
            return _NO_LIMIT
        model = body["model"] or provider.model
        is_away = self._circuits.is_open(provider)  # then nobody asks it anything
        loaded = None if is_away else self._windows.loaded(provider, model)
        defaults = self._settings.all()["model_defaults"]
        wanted = with_defaults(body, model, defaults).get("options", {}).get("num_ctx")
        return max(loaded or 0, wanted or 0) or USUAL_WINDOW

    def _keep(self, ticket: Ticket, record: _Record, batch: list[Event]) -> None:
        """Keep the answer, once; the last event of *batch* says so where that fails."""
        if record.is_kept:
            return
        record.is_kept = True
        try:
            self._store.finish(
                ticket,
                status=record.status or "failed",  # a fault of this program
                content=record.text(),
                data=record.data(),
                usage=record.usage,
                error=record.error,
                provider=record.provider,
                model=record.model,
            )
        except SQLAlchemyError:
            log.exception("an answer of the conversation %s could not be kept", ticket.conversation_id)
            if batch:
                said = f"{batch[-1][1].get('notice', '')} The conversation could not keep this answer."
                batch[-1][1]["notice"] = said.strip()


class _Record:
    """An answer as it is to be kept."""

    def __init__(self, provider: str, model: str) -> None:
        self.provider = provider
        self.model = model
        self.status = ""  # until it is over
        self.is_kept = False
        self.usage: Json | None = None
        self.error: Json | None = None
        self._parts: list[str] = []
        self._thoughts: list[str] = []
        self._more: Json = {}

    def text(self) -> str:
        """Return what the model has said."""
        return "".join(self._parts)

    def data(self) -> Json:
        """Return what there is beside the text."""
        thoughts = "".join(self._thoughts)
        return {**({"thinking": thoughts} if thoughts else {}), **self._more}

    def take(self, batch: list[Event]) -> None:
        """Take note of events."""
        for name, data in batch:
            if name == "delta":
                self._parts.append(data.get("content", ""))
                self._thoughts.append(data.get("thinking", ""))
                if "tool_calls" in data:
                    self._more["tool_calls"] = [*self._more.get("tool_calls", ()), *data["tool_calls"]]
            elif name == "start":
                self.provider, self.model = data["provider"], data.get("model", self.model)
            elif name == "done":
                self._complete(data)
            elif name == "error":
                self.fail(data)

    def fail(self, error: Json) -> None:
        """Take note of what ended it."""
        self.error = {name: value for name, value in error.items() if name != "request_id"}
        if error["error_type"] == "chat_stopped":
            self.status = "stopped"
        else:
            self.status = "cut" if self.text() else "failed"

    def _complete(self, data: Json) -> None:
        self.status = "complete"
        self.provider, self.model, self.usage = data["provider"], data["model"], data["usage"]
        self._parts = [data["response"]]
        self._more = {name: data[name] for name in _IN_DATA if data.get(name)}


def _is_about_length(error: UpstreamRejected) -> bool:
    """Tell whether a provider refuses a chat for its length; there is no status of its own for that."""
    return error.details.get("upstream_status") == 413 or bool(_LENGTH.search(error.message))


def _plain(message: Json) -> Json:
    """Return *message* as a chat has it, without what is kept beside it."""
    return {name: value for name, value in message.items() if name not in {"status", "seq", "finish_reason"}}


def _with_id(name: str, data: Json, id: str) -> Json:
    return {**data, "conversation_id": id} if name in {"start", "done"} else data
