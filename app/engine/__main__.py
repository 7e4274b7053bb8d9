"""Start the engine: ``python -m app.engine``."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engine import gojson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.engine.models.store import ModelStore
    from app.engine.routes.wire import Services

log = logging.getLogger("app.engine")

_MAX_PORT = 65535


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal ends the process; return the exit code."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    flags = _flags(arguments)
    try:
        keep_alive = gojson.duration(flags.keep_alive)
    except gojson.BadBodyError as exc:
        return _fail(f"--keep-alive: {exc}.")
    return _serve(flags, keep_alive)


def _flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.engine", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=port_number, default=11434, help="port; 0 chooses a free one")
    parser.add_argument("--models", type=Path, default=_default_models(), help="models folder")
    parser.add_argument(
        "--keep-alive",
        default=os.environ.get("OLLAMA_KEEP_ALIVE") or "5m",
        help="how long an unused model stays in memory, such as 10m; negative: for ever",
    )
    parser.add_argument("--max-loaded", type=int, default=2, help="models in memory at once")
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when stdin reaches its end")
    return parser.parse_args(arguments)


def port_number(text: str) -> int:
    """Parse a port, for argparse.

    :raises ValueError: when it is no port
    """
    port = int(text)
    if not 0 <= port <= _MAX_PORT:  # the system would take it modulo 65536
        raise ValueError(text)
    return port


def _default_models() -> Path:
    return Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")


def _serve(flags: argparse.Namespace, keep_alive: float) -> int:
    from app.engine.models.seed import seed  # here, so that --help is fast
    from app.engine.models.store import ModelStore
    from app.engine.pulls.leftovers import INTERVAL
    from app.threads import Recurring

    try:
        store = ModelStore(flags.models.expanduser().resolve())
        seed(store)
    except OSError as exc:
        return _fail(f"The models folder {flags.models} cannot be used: {exc.strerror}")
    services = _services(store, max(1, flags.max_loaded), keep_alive)
    try:
        server = _listen(services, flags.host, flags.port)
    except (OSError, ValueError) as exc:
        why = getattr(exc, "strerror", None) or "no such address or port"
        return _fail(f"Cannot listen on {flags.host}:{flags.port}: {why}.")
    Recurring("removal of unfinished files", INTERVAL, services.pulls.remove_leftovers).start()
    _stop_on_signals([services.pulls.stop, services.scheduler.stop])
    if flags.exit_with_parent:
        threading.Thread(target=_wait_for_parent, name="parent", daemon=True).start()
    sys.stdout.write(f"Listening on {_url(server)}\n")
    sys.stdout.flush()
    try:
        server.run()
    finally:
        services.scheduler.stop()
    return 0


def _fail(sentence: str) -> int:
    sys.stderr.write(sentence + "\n")
    return 1


def _services(store: ModelStore, max_loaded: int, keep_alive: float) -> Services:
    from app.engine.pulls.pulls import Pulls
    from app.engine.routes.wire import Services
    from app.engine.runners.relay import Departures
    from app.engine.runners.scheduler import Scheduler

    scheduler = Scheduler(store, max_loaded=max_loaded, keep_alive=keep_alive)
    return Services(store, scheduler, Departures(), Pulls(store))


def _listen(services: Services, host: str, port: int) -> Any:
    from app.engine.factory import create_app
    from app.engine.serving import listen

    return listen(create_app(services, loopback=_is_loopback(host)), host, port)


def _url(server: Any) -> str:
    """Return the URL of *server*; of a host name with several addresses, the first one."""
    if hasattr(server, "effective_port"):
        host, port = server.effective_host, server.effective_port
    else:
        host, port = server.effective_listen[0]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _stop_on_signals(stops: list[Callable[[], None]]) -> None:
    def stop(*_: object) -> None:
        for act in stops:  # in threads, because the interrupted code may hold a lock that they need
            threading.Thread(target=act).start()
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _wait_for_parent() -> None:
    """Stop when stdin closes: the system closes it when the parent ends, even if the parent is killed."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
