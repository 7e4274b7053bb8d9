"""The loaded models: loads them on demand, unloads them after `keep_alive` or to make room."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.engine.gojson import FOREVER
from app.engine.runners import child
from app.engine.runners.launch import Launch, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.engine.models.store import Model, ModelStore
    from app.engine.runners.child import Runner

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1


class ClientLeftError(Exception):
    """The client disconnected before its answer was complete."""


class RunnerDiedError(Exception):
    """The runner's connection broke before its answer was complete."""


@dataclass
class Loaded:
    """A model in memory, or being loaded; all names of the same model share it."""

    model: Model  # under the name that loaded it
    keep_alive: float
    launch: Launch | None = None
    process: Runner | None = None
    users: int = 0  # requests that lease it, or wait until it is loaded
    active: int = 0  # requests that its runner answers
    expires_at: float = 0.0
    used_at: float = 0.0
    load_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ready(self) -> bool:
        """Whether its runner is alive."""
        return self.process is not None and self.process.alive

    @property
    def runner(self) -> Runner:
        """The runner of a leased model.

        :raises RunnerDiedError: when the engine has stopped it
        """
        if self.process is None:
            raise RunnerDiedError
        return self.process


class Scheduler:
    """Leases loaded models to requests; a model's key is the digest of its manifest."""

    def __init__(self, store: ModelStore, *, max_loaded: int, keep_alive: float) -> None:
        self._store = store
        self._max_loaded = max_loaded
        self._keep_alive = keep_alive
        self._loaded: dict[str, Loaded] = {}
        self._changed = threading.Condition()
        self._stopped = False
        threading.Thread(target=self._expire, name="expire", daemon=True).start()

    @contextmanager
    def lease(
        self,
        model: Model,
        *,
        keep_alive: float | None = None,
        num_ctx: int | None = None,
        gone: Callable[[], bool] = lambda: False,
    ) -> Iterator[Loaded]:
        """Load *model* if it is not loaded, and keep it in memory while the block runs.

        :param keep_alive: seconds that the model then stays loaded; None for the present value
        :param num_ctx: the least window; None accepts any
        :raises LoadError: when the model cannot be loaded
        :raises ClientLeftError: when *gone* becomes true while the request waits for room
        """
        entry = self._claim(model, gone)
        try:
            if keep_alive is not None:
                entry.keep_alive = keep_alive
            with entry.load_lock:  # so that requests at the same time load it once
                self._load(entry, model, num_ctx)
                with self._changed:
                    entry.active += 1
            try:
                yield entry
            finally:
                with self._changed:
                    entry.active -= 1
                    self._changed.notify_all()
        finally:
            self._release(entry)

    def unload(self, model: Model) -> None:
        """Unload *model*, at once or when its last answer is complete."""
        with self._changed:
            entry = self._loaded.get(model.manifest.digest)
            if entry is not None:
                entry.keep_alive = entry.expires_at = 0.0
        self._sweep()

    def running(self) -> list[Loaded]:
        """List the models in memory, the last used first."""
        with self._changed:
            entries = [entry for entry in self._loaded.values() if entry.ready]
        return sorted(entries, key=lambda entry: entry.used_at, reverse=True)

    def stop(self) -> None:
        """Stop every runner."""
        with self._changed:
            self._stopped = True
            entries = list(self._loaded.values())
            self._loaded.clear()
            self._changed.notify_all()
        for entry in entries:
            if entry.process is not None:
                entry.process.stop()

    def _claim(self, model: Model, gone: Callable[[], bool]) -> Loaded:
        """Return the model's entry and count a user of it; wait for room if the model is not loaded."""
        key, evicted = model.manifest.digest, None
        with self._changed:
            while key not in self._loaded and len(self._loaded) >= self._max_loaded:
                evicted = self._evict()
                if evicted is None:
                    self._changed.wait(_POLL_SECONDS)
                    if gone():
                        raise ClientLeftError
            entry = self._loaded.setdefault(key, Loaded(model, self._keep_alive))
            entry.users += 1
        if evicted is not None:
            self._end(evicted, "making room")
        return entry

    def _evict(self) -> Loaded | None:
        """Remove and return the least recently used idle model; None when no model is idle."""
        idle = [item for item in self._loaded.items() if not item[1].users]
        if not idle:
            return None
        key, entry = min(idle, key=lambda item: item[1].used_at)
        del self._loaded[key]
        return entry

    def _load(self, entry: Loaded, model: Model, num_ctx: int | None) -> None:
        """Start a runner if there is none, it died, or its window is smaller than *num_ctx*."""
        wanted = plan(self._store, model, num_ctx)
        fits = entry.launch is not None and wanted.num_ctx <= entry.launch.num_ctx
        if entry.ready and (fits or num_ctx is None):
            return
        if entry.ready:
            with self._changed:  # the runner first completes its present answers
                self._changed.wait_for(lambda: not entry.active)
        self._end(entry, "larger context" if entry.ready else "it died")
        started = time.monotonic()
        entry.process = child.start(wanted.order(str(model.name)))
        entry.launch, entry.model = wanted, model
        log.info("loaded %s in %.2f s", model.name, time.monotonic() - started)

    def _release(self, entry: Loaded) -> None:
        with self._changed:
            entry.users -= 1
            entry.used_at = time.time()
            entry.expires_at = entry.used_at + entry.keep_alive
            self._changed.notify_all()
        if entry.keep_alive <= 0 or not entry.ready:
            self._sweep()

    def _sweep(self) -> float:
        """Unload expired and dead models that are idle; return the seconds until the next one expires."""
        ended, wait = [], FOREVER
        with self._changed:
            for key, entry in list(self._loaded.items()):
                left = entry.expires_at - time.time()
                if entry.users:
                    continue
                if left <= 0 or not entry.ready:
                    del self._loaded[key]
                    ended.append(entry)
                else:
                    wait = min(wait, left)
            self._changed.notify_all()
        for entry in ended:
            self._end(entry, "expired" if entry.ready else "it died")
        return wait

    @staticmethod
    def _end(entry: Loaded, why: str) -> None:
        if entry.process is not None:
            entry.process.stop()
            log.info("unloaded %s: %s", entry.model.name, why)
            entry.process = None

    def _expire(self) -> None:
        while not self._stopped:
            wait = self._sweep()
            with self._changed:
                if not self._stopped:
                    self._changed.wait(min(wait, 1.0))
