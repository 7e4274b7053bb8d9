"""Start the backend: read the flags, make the app, and serve it."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace

import click

from app import create_app, logs
from app.config import Config
from app.container import Services
from app.errors import ServiceError
from app.interpreter import keep_what_is_loaded
from app.server import Worker, make_listener, run, start_workers
from app.services.ollama import Launcher
from app.stopping import limit_stop


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--host", help="Address to listen on.  [default: BACKEND_HOST, else 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="[default: BACKEND_PORT, else 8002]")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Processes that serve the port together; not on Windows.  [default: BACKEND_WORKERS, else 1]",
)
@click.option(
    "--ollama",
    type=click.Choice(["auto", "external", "embedded"]),
    default="external",
    show_default=True,
    help="Which Ollama to use. external: the server at the configured base_url. auto: if no server answers "
    "there, start `ollama serve`, or else the embedded engine. embedded: if no server answers there, start "
    "the embedded engine.",
)
@click.option("--enable", multiple=True, metavar="ID", help="Enable a provider for this run.")
def main(
    host: str | None, port: int | None, workers: int | None, ollama: str, enable: tuple[str, ...]
) -> None:
    """Serve the backend in front of local language models."""
    for how in (signal.SIGTERM, signal.SIGINT):  # until the server handles them
        signal.signal(how, lambda *_: sys.exit(0))
    config = _config(host, port, workers, enable)
    logs.configure(config)
    listener = _listen(config)
    worker = start_workers(config.workers) if config.workers > 1 else None
    if worker and not worker.is_first:
        ollama = "external"  # the first one starts it for all
    app = create_app(config)
    services: Services = app.extensions["services"]
    for id in config.enable:
        _check_provider(services, id)
    provider = services.providers.get("ollama")
    log_file = config.data_dir / "ollama.log"
    launcher = Launcher(services.session, provider, log_file, ollama, services.readiness)
    server = make_listener(app, config, listener, worker)

    def stop(*_: object) -> None:
        services.stop()
        server.pull_trigger()  # wakes the server

    for how in (signal.SIGTERM, signal.SIGINT):
        signal.signal(how, stop)
    limit_stop()
    if worker:
        worker.follow(stop)
    with ExitStack() as at_end:
        at_end.callback(services.close)
        at_end.callback(launcher.stop)  # called first: the answers that need Ollama are over then
        # In a thread: a slow server at Ollama's address must not delay the first requests.
        threading.Thread(
            target=_prepare, args=(services, launcher, listener, worker), name="start", daemon=True
        ).start()
        run(server, at_end.close)


def _config(host: str | None, port: int | None, workers: int | None, enable: tuple[str, ...]) -> Config:
    config = Config.from_env()
    config = replace(
        config,
        host=host or config.host,
        port=config.port if port is None else port,
        workers=workers or config.workers,
        enable=config.enable + enable,
    )
    config.check_exposure()
    return config


def _listen(config: Config) -> socket.socket:
    """Take the port, before the app is made and Ollama is started."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as exc:
        raise click.ClickException(
            f"Cannot listen on {config.host}:{config.port}: {exc.strerror}.\n"
            "Is a backend running there already? Stop it, or choose another --port."
        ) from exc


def _check_provider(services: Services, id: str) -> None:
    try:
        services.providers.get(id)
    except ServiceError as exc:
        known = ", ".join(services.providers.all())
        raise click.ClickException(f"{exc.message} The providers are: {known}") from exc


def _prepare(services: Services, launcher: Launcher, listener: socket.socket, worker: Worker | None) -> None:
    """Find or start an Ollama, say which one and what to type next, and load the chat client's modules."""
    launcher.start()
    services.jobs.start()
    if worker is None or worker.is_first:
        _greet(services, launcher, listener)
    if worker:
        worker.let_others_start()
    services.clients.warm_up()
    keep_what_is_loaded()  # once for each process, when all of it is loaded


def _greet(services: Services, launcher: Launcher, listener: socket.socket) -> None:
    """Wait for the Ollama; print which one it is, and what to type next."""
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    click.echo(launcher.describe())
    if services.providers.get("ollama").enabled:
        click.echo(f"The provider 'ollama' is enabled for this run; the API is described at {url}/api/docs")
        key = ' -H "Authorization: Bearer $BACKEND_API_KEY"' if services.config.api_key else ""
        click.echo(
            f"Try: curl -s {url}/api/chat -H 'Content-Type: application/json'{key} "
            """-d '{"message":"Why is the sky blue?"}'"""
        )
    else:
        click.echo(
            "The provider 'ollama' is disabled; enable it with --enable ollama, or with\n"
            f"  curl -X PATCH {url}/api/providers/ollama -H 'Content-Type: application/json' "
            """-d '{"enabled":true}'"""
        )


if __name__ == "__main__":
    main()
