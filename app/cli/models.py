"""``flask models ...``: manage the models of Ollama with the same services as the API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import click
from flask.cli import AppGroup
from marshmallow import Schema

from app.cli.pull_progress import follow_pull, human_size
from app.errors import ServiceError
from app.extensions import services
from app.schemas.disk import DiskSchema
from app.schemas.models import ModelListSchema
from app.schemas.running import RunningListSchema
from app.schemas.show import CopiedSchema, DeletedSchema, ModelDetailSchema
from app.schemas.updates import UpdateList, UpdateListSchema, UpdateResultSchema

models = AppGroup("models", help="The models of Ollama: list, show, pull, rm, cp, update, running, disk.")


def _command(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Add a command to ``models``; a failure of a service prints its message, and exits with 1."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            try:
                function(*args, **kwargs)
            except ServiceError as exc:
                hint = f"\n{exc.hint}" if exc.hint else ""
                raise click.ClickException(f"{exc.message}{hint}") from exc
            finally:
                services.close()

        as_json = click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON.")
        command: click.Command = models.command(name)(as_json(run))
        return command

    return decorate


@_command("list")
def list_models(as_json: bool) -> None:
    """List the installed models."""
    answer = services.models.list()
    if as_json:
        _print_json(ModelListSchema(), answer)
        return
    rows = [
        (m["name"], m["digest"][7:19], human_size(m["size"]), f"{m['modified_at']:%Y-%m-%d %H:%M}")
        for m in answer["models"]
    ]
    _print_table(("NAME", "ID", "SIZE", "MODIFIED"), rows)


@_command("show")
@click.argument("model")
def show_model(model: str, as_json: bool) -> None:
    """Show the details of a model."""
    found = ModelDetailSchema().dump(services.models.get(model))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        if value not in (None, "", [], {}):
            text = value if isinstance(value, str) else json.dumps(value)
            click.echo(f"{name}: {text}" if "\n" not in text else f"{name}:\n{text}")


@_command("pull")
@click.argument("model")
@click.option("--insecure", is_flag=True, help="Use plain HTTP; only for a registry on this machine.")
@click.option("--force", is_flag=True, help="Pull even when the model does not seem to fit on the disk.")
@click.option("--now", is_flag=True, help="Pull even outside the time of day that the settings allow.")
def pull_model(model: str, insecure: bool, force: bool, now: bool, as_json: bool) -> None:
    """Download a model. The backend goes on with the pull when you stop this command."""
    pull = services.pulls.start(model, insecure=insecure, now=now, force=force)
    follow_pull(services.pulls, pull["id"], as_json=as_json)


@_command("rm")
@click.argument("model")
@click.option("--dry-run", is_flag=True, help="Delete nothing; print how many bytes it would free.")
@click.option("--versions", is_flag=True, help="Delete the former versions that updates have kept, too.")
def remove_model(model: str, dry_run: bool, versions: bool, as_json: bool) -> None:
    """Delete a model from the disk."""
    result = services.removal.delete(model, dry_run=dry_run, versions=versions)
    if as_json:
        _print_json(DeletedSchema(), result)
        return
    verb = "would free" if dry_run else "freed"
    about = "about " if result.get("estimated") else ""
    going = ", ".join([result["model"], *result["deleted_versions"]])
    click.echo(f"{going}: {verb} {about}{human_size(result['freed_bytes'])}")
    for name in result["kept_versions"]:
        click.echo(f"{name}, a former version, stays; --versions deletes it, too.")


@_command("cp")
@click.argument("source")
@click.argument("destination")
@click.option("--overwrite", is_flag=True, help="Replace the model that has the second name.")
def copy_model(source: str, destination: str, overwrite: bool, as_json: bool) -> None:
    """Give a model a second name."""
    result = services.models.copy(source, destination, overwrite=overwrite)
    if as_json:
        _print_json(CopiedSchema(), result)
    else:
        click.echo(f"{result['source']} is now also {result['destination']}")


@_command("update")
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--all", "all_models", is_flag=True, help="Update every outdated model.")
@click.option("--include-loaded", is_flag=True, help="Update models that are in memory, too.")
def update_models(names: tuple[str, ...], all_models: bool, include_loaded: bool, as_json: bool) -> None:
    """Update the named models, or --all; without either, list which models are outdated."""
    if names and all_models:
        raise click.UsageError("Give names or --all, not both.")
    if not names and not all_models:
        _say_updates(services.updates.check(refresh=True), as_json=as_json)
        return
    result = services.updates.start(list(names) if names else None, include_loaded=include_loaded)
    if as_json:
        click.echo(json.dumps(UpdateResultSchema().dump(result)))
    for item in result["skipped"]:
        click.echo(f"{item['model']}: skipped, {item['reason']}", err=as_json)
    for started in result["started"]:
        follow_pull(services.pulls, started["pull"]["id"], as_json=as_json)


def _say_updates(found: UpdateList, *, as_json: bool) -> None:
    if as_json:
        _print_json(UpdateListSchema(), found)
        return
    rows = [
        (m["model"], m["status"], human_size(m["download_bytes"] or 0), ", ".join(m["changed"] or ()))
        for m in found["models"]
    ]
    _print_table(("NAME", "STATUS", "TO FETCH", "CHANGED"), rows)


@_command("running")
def list_running(as_json: bool) -> None:
    """List the models in memory."""
    answer = services.memory.list()
    if as_json:
        _print_json(RunningListSchema(), answer)
        return
    rows = [
        (
            m["name"],
            human_size(m["size"]),
            f"{m['gpu_percent']:g} %",
            str(m["context_length"] or ""),
            "for ever" if m["forever"] else f"{m['expires_at']:%H:%M:%S}" if m["expires_at"] else "",
        )
        for m in answer["models"]
    ]
    _print_table(("NAME", "MEMORY", "ON GPU", "CONTEXT", "UNTIL"), rows)


@_command("disk")
def show_disk(as_json: bool) -> None:
    """Show how much disk space each model takes, and how much deleting it would free."""
    answer = services.disk.usage()
    if as_json:
        _print_json(DiskSchema(), answer)
        return
    rows = [
        (
            m["model"],
            human_size(m["size"]),
            human_size(m["reclaimable_bytes"]),
            f"{m['last_used_at']:%Y-%m-%d}" if m["last_used_at"] else "",
            "yes" if m["safe_to_remove"] else "protected" if m["protected"] else "no",
            m["reason"],
        )
        for m in answer["models"]
    ]
    _print_table(("NAME", "SIZE", "RECLAIMABLE", "LAST USED", "SAFE TO REMOVE", "WHY"), rows)
    free = f", free {human_size(answer['free_bytes'])}" if answer["free_bytes"] else ""
    safe = human_size(answer["safe_to_remove_bytes"])
    click.echo(f"In all {human_size(answer['total_bytes'])}{free}, safe to remove {safe}")


def _print_json(schema: Schema, answer: object) -> None:
    click.echo(json.dumps(schema.dump(answer), indent=2))


def _print_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print aligned columns with two spaces between them."""
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
