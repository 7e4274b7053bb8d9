"""``POST /api/pull``: starts downloads, and lets clients share them."""

from __future__ import annotations

import logging
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from app.engine.models.store import disk_trouble, file_digest
from app.engine.pulls.leftovers import remove_leftovers
from app.engine.pulls.transfer import CancelledError, PullError, Transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.engine.gojson import Object
    from app.engine.models.store import ModelStore
    from app.engine.pulls.registry import Registry
    from app.manifest import Layer, Manifest
    from app.model_name import ModelName

log = logging.getLogger(__name__)

_LOCK_POLL_SECONDS = 0.05


class Pulls:
    """The running pulls, one for each model."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._transfers: dict[tuple[ModelName, bool], Transfer] = {}
        self._lock = threading.Lock()

    def pull(self, name: ModelName, *, insecure: bool, gone: Callable[[], bool]) -> Iterator[Object]:
        """Pull *name*, or join its running pull; yield the progress lines.

        The pull is cancelled when its last client stops reading them, or *gone* says that it disconnected.

        :raises PullError: when the pull failed
        """
        transfer = self._join(name, insecure=insecure)
        try:
            yield from transfer.follow(gone)
        finally:
            self._leave(name, transfer)

    def stop(self) -> None:
        """Cancel all pulls; the bytes that were downloaded stay on the disk."""
        with self._lock:
            for transfer in self._transfers.values():
                transfer.cancel()

    def remove_leftovers(self) -> None:
        """Remove what former pulls have left on the disk; see :mod:`app.engine.pulls.leftovers`."""
        with self._lock:
            kept = [path for transfer in self._transfers.values() for path in transfer.partials]
        remove_leftovers(self._store, kept)

    def _join(self, name: ModelName, *, insecure: bool) -> Transfer:
        key = (name.key, insecure)
        with self._lock:
            transfer = self._transfers.get(key)
            if transfer is None or transfer.ended or transfer.cancelled.is_set():
                transfer = self._transfers[key] = Transfer()
                threading.Thread(
                    target=self._run, args=(name, insecure, transfer), name="pull", daemon=True
                ).start()
            transfer.clients += 1
            return transfer

    def _leave(self, name: ModelName, transfer: Transfer) -> None:
        with self._lock:
            transfer.clients -= 1
            if not transfer.clients and not transfer.ended:
                transfer.cancel()
                log.info("stopped: nobody follows the pull of %s", name)

    def _run(self, name: ModelName, insecure: bool, transfer: Transfer) -> None:
        from app.engine.pulls import registry  # here, because requests is slow to import and seldom needed

        source = registry.Registry(name, insecure=insecure)
        transfer.interrupt = source.interrupt
        try:
            self._pull(source, name, transfer)
            transfer.end()
        except CancelledError:
            transfer.end("context canceled")
        except PullError as exc:
            transfer.end(str(exc))
        except OSError as exc:
            log.warning("pull of %s: %s", name, exc)
            transfer.end(disk_trouble(exc))
        except BaseException:
            transfer.end("the engine has a fault in this pull; its log tells more")
            raise
        finally:
            source.close()
            with self._lock:
                self._transfers = {
                    key: other for key, other in self._transfers.items() if other is not transfer
                }

    def _pull(self, source: Registry, name: ModelName, transfer: Transfer) -> None:
        transfer.say({"status": "pulling manifest"})
        manifest = source.manifest()
        transfer.partials = [self._store.partial_path(layer.digest) for layer in _distinct(manifest)]
        self._check_space(manifest)
        fetched = [layer for layer in _distinct(manifest) if self._bring(source, layer, transfer)]
        transfer.say({"status": "verifying sha256 digest"})
        for layer in fetched:
            self._verify(layer, transfer)
        former = self._store.find(name)
        with self._store.pinned(manifest):
            transfer.say({"status": "writing manifest"})
            self._store.write(name, manifest)
        if former is not None and former.manifest.digest != manifest.digest:
            transfer.say({"status": "removing unused layers"})
            self._store.prune(former.manifest)
        transfer.say({"status": "success"})

    def _check_space(self, manifest: Manifest) -> None:
        missing = sum(layer.size for layer in _distinct(manifest) if not self._store.has_blob(layer))
        have = sum(
            path.stat().st_size
            for layer in _distinct(manifest)
            if (path := self._store.partial_path(layer.digest)).exists()
        )
        if missing - have > shutil.disk_usage(self._store.root).free:
            raise PullError(f"write {self._store.root}: no space left on device")

    def _bring(self, source: Registry, layer: Layer, transfer: Transfer) -> bool:
        """Fetch *layer* unless it is on the disk; return whether it was fetched."""
        partial = self._store.partial_path(layer.digest)

        def grew(length: int) -> None:
            transfer.progress = _progress(layer, length)

        with self._alone(partial, transfer):
            if self._store.has_blob(layer):
                transfer.say(_progress(layer, layer.size))
                return False
            source.fetch(layer, partial, transfer.cancelled, grew)
        return True

    def _verify(self, layer: Layer, transfer: Transfer) -> None:
        """Check the digest of a fetched *layer*, and move it into the store.

        :raises PullError: when the digest is another one; the bytes are deleted
        """
        partial = self._store.partial_path(layer.digest)
        with self._alone(partial, transfer):
            if self._store.has_blob(layer):  # another pull has fetched it meanwhile
                return
            actual = file_digest(partial)
            if actual != layer.digest:
                partial.unlink()
                raise PullError(
                    f"digest mismatch, file must be downloaded again: want {layer.digest}, got {actual}"
                )
            partial.replace(self._store.blob_path(layer.digest))

    @contextmanager
    def _alone(self, partial: Path, transfer: Transfer) -> Iterator[None]:
        """Hold the lock of *partial*: no other transfer of this or another process writes the file meanwhile.

        :raises CancelledError: when the transfer is cancelled while it waits for the lock
        """
        lock = FileLock(f"{partial}.lock")
        while True:
            try:
                lock.acquire(timeout=_LOCK_POLL_SECONDS)
                break
            except Timeout:
                if transfer.cancelled.is_set():
                    raise CancelledError from None
        try:
            yield
        finally:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)


def _distinct(manifest: Manifest) -> list[Layer]:
    """List the blobs in the order of a pull, without repetitions."""
    return list({blob.digest: blob for blob in manifest.blobs}.values())


def _progress(layer: Layer, completed: int) -> Object:
    """Build a progress line; zeros are left out, as Go does."""
    line: Object = {"status": f"pulling {layer.digest[7:19]}", "digest": layer.digest}
    numbers = {"total": layer.size, "completed": completed}
    return line | {key: number for key, number in numbers.items() if number}
