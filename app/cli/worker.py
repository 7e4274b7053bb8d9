"""``flask worker``: run pulls and updates without a server."""

from __future__ import annotations

import signal
import threading

import click
from flask.cli import with_appcontext

from app.extensions import services
from app.stopping import limit_stop


@click.command("worker")
@with_appcontext
def worker() -> None:
    """Run pulls and updates without a server; with a shared database and Redis, on any machine."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    limit_stop()
    services.jobs.start()
    click.echo("The worker runs. Ctrl-C stops it; its unfinished pulls go back to the queue.")
    try:
        stop.wait()
    except KeyboardInterrupt:
        click.echo()
    finally:
        services.stop()
        services.close()
