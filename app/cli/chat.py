"""``flask chat``: hold a conversation on the terminal, or answer one message, as in a pipe."""

from __future__ import annotations

import contextlib
import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import click
from flask.cli import with_appcontext

from app.errors import ServiceError
from app.extensions import services
from app.schemas.chat import ChatBody
from app.schemas.chat_results import ChatResponseSchema

Json = dict[str, Any]

_HELP = """/model NAME     ask another model        /new    begin a new conversation
/system TEXT    set the system prompt    /exit   leave; so do Ctrl-D, and Ctrl-C at the prompt
Ctrl-C stops an answer. End a line with \\ to continue the message on the next line."""


@click.command("chat")
@click.argument("words", nargs=-1, metavar="[MESSAGE]...")
@click.option("-p", "--provider", help="The provider.  [default: the conversation's, else the settings']")
@click.option("-m", "--model", help="The model.  [default: the conversation's, else the provider's]")
@click.option("-s", "--system", help="The system prompt, which tells the model how to behave.")
@click.option("-c", "--conversation", help="The id of a conversation to go on with; `last` for the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON.")
@with_appcontext
def chat(
    words: tuple[str, ...],
    provider: str | None,
    model: str | None,
    system: str | None,
    conversation: str | None,
    as_json: bool,
) -> None:
    """Chat with a model.

    With a MESSAGE, or with text from a pipe, print one answer and exit; with both, the model gets the MESSAGE
    and then the text. Otherwise begin a conversation, which the database keeps.
    """
    try:
        conversation = _find(conversation) if conversation else None
        # Chatting with a provider here enables it for this run, unless the user has disabled it.
        services.providers.enable(_provider(provider, conversation))
        asked = {"provider": provider, "model": model, "system_prompt": system}
        piped = "" if sys.stdin.isatty() else sys.stdin.buffer.read().decode("utf-8", "replace")
        message = "\n\n".join(filter(str.strip, (" ".join(words), piped)))
        if message:
            _answer_once({**asked, "message": message}, conversation, as_json=as_json)
        elif sys.stdin.isatty():
            _Talk(asked, conversation).run()
        else:
            raise click.UsageError("There is no message: the arguments and the pipe are empty.")
    except ServiceError as exc:
        raise click.ClickException(_sentence(exc.message, exc.hint)) from exc
    finally:
        services.close()


def _answer_once(body: Json, conversation: str | None, *, as_json: bool) -> None:
    if conversation:
        body["conversation_id"] = conversation
    try:
        done = _show(body, quiet=as_json)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None
    if as_json:
        click.echo(json.dumps(ChatResponseSchema().dump(done), indent=2))
    elif done.get("notice"):
        click.echo(done["notice"], err=True)


class _Talk:
    """A conversation on the terminal."""

    def __init__(self, asked: Json, conversation: str | None) -> None:
        self._asked = asked
        self._id = conversation

    def run(self) -> None:
        """Ask and answer until the user leaves."""
        with _line_history(services.config.data_dir / "chat_history"):
            click.echo("Ctrl-D leaves, Ctrl-C stops an answer, /help shows the commands.")
            with contextlib.suppress(EOFError, KeyboardInterrupt):
                while True:
                    self._take(_read_lines())
            click.echo()
            self._say_how_to_go_on()

    def _say_how_to_go_on(self) -> None:
        if self._id:
            click.echo(f"Go on with it: flask chat -c {self._id}")

    def _take(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        if not text.strip():
            return
        if word in {"/exit", "/quit"}:
            raise EOFError
        if word == "/model" and rest.strip():
            self._asked["model"] = rest.strip()
            click.secho(f"The next question goes to {rest.strip()}.", dim=True)
        elif word == "/system":
            self._asked["system_prompt"] = rest.strip()
            click.secho("The system prompt is set." if rest.strip() else "No system prompt.", dim=True)
        elif word == "/new":
            self._say_how_to_go_on()
            self._id = None
        elif word.startswith("/"):
            click.echo(_HELP if word == "/help" else f"There is no command {word}.\n{_HELP}")
        else:
            self._ask(text)

    def _ask(self, text: str) -> None:
        """Print the answer to *text*; a failure or Ctrl-C ends the answer, not the conversation."""
        try:
            if self._id is None:
                self._id = services.conversations.create()["id"]
            done = _show({**self._asked, "message": text, "conversation_id": self._id})
            click.secho(_figures(done), dim=True)
        except KeyboardInterrupt:
            click.secho("\n(stopped)", dim=True)
        except ServiceError as exc:
            click.secho(_sentence(exc.message, exc.hint), fg="red", err=True)


def _show(body: Json, *, quiet: bool = False) -> Json:
    """Print the answer to *body* as it comes, and return the data of `done`.

    :raises ServiceError: when the chat fails, also in mid-stream
    """
    answering = services.conversation_chat if body.get("conversation_id") else services.chat
    events = answering.answer(cast("ChatBody", {**body, "stream": True}), uuid.uuid4().hex)
    is_thinking = False
    last: Json = {}
    with contextlib.closing(events):
        for batch in events:
            for name, data in batch:
                last = data
                if name == "error":
                    raise ServiceError(data["error"], hint=data.get("hint", ""))
                if name == "loading" and not quiet and sys.stderr.isatty():
                    click.secho(data["message"], dim=True, err=True)
                if name != "delta" or quiet:
                    continue
                if "thinking" in data and sys.stdout.isatty():
                    click.secho(_printable(data["thinking"]), dim=True, nl=False)
                    is_thinking = True
                if "content" in data:
                    click.echo("\n\n" if is_thinking else "", nl=False)
                    click.echo(_printable(data["content"]), nl=False)
                    is_thinking = False
    if not quiet:
        click.echo()
    return last


def _printable(text: str) -> str:
    """Return *text* without lone surrogates: some models write them, and a terminal cannot print them."""
    return text.encode("utf-8", "replace").decode()


def _provider(named: str | None, conversation: str | None) -> str:
    kept = services.conversations.get(conversation, limit=0)["provider"] if conversation else None
    found: str = named or kept or services.settings.all()["default_provider"]
    return found


def _find(conversation: str) -> str:
    if conversation != "last":
        return conversation
    newest = services.conversations.all(limit=1, offset=0)["conversations"]
    if not newest:
        raise click.UsageError("There is no conversation yet.")
    found: str = newest[0]["id"]
    return found


def _figures(done: Json) -> str:
    speed = f", {done['tokens_per_second']:g} tokens/s" if "tokens_per_second" in done else ""
    notice = f"\n{done['notice']}" if done.get("notice") else ""
    return f"{done['model']}: {done['tokens']} tokens{speed}{notice}"


def _sentence(message: str, hint: str) -> str:
    return f"{message}\n{hint}" if hint else message


def _read_lines() -> str:
    """Read one message: a line, and the next one after each backslash at a line's end."""
    lines = [input("> ")]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(input(". "))
    return "\n".join(lines)


@contextlib.contextmanager
def _line_history(path: Path) -> Iterator[None]:
    """Let the arrow keys recall the lines of this session and of earlier ones, if there is readline."""
    try:
        import readline
    except ImportError:  # Windows
        yield
        return
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            readline.write_history_file(path)
            path.chmod(0o600)
