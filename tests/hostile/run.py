"""What a scenario gets: chance, a folder, and the processes to attack."""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.hostile.processes import Backend
from tests.hostile.provider import Provider
from tests.hostile.result import Result

_T = TypeVar("_T")


@dataclass
class Run:
    """One run of one scenario; all that it starts ends with it."""

    rng: random.Random
    quick: bool
    folder: Path
    result: Result = field(default_factory=Result)
    stack: ExitStack = field(default_factory=ExitStack)
    _count: int = 0

    def enter(self, context: Any) -> Any:
        """Enter *context* until the scenario ends."""
        return self.stack.enter_context(context)

    def pick(self, quick: _T, whole: _T) -> _T:
        """Return *quick* in a quick run, else *whole*."""
        return quick if self.quick else whole

    def provider(self) -> Provider:
        """Start a fake Ollama, which is an OpenAI-compatible provider too."""
        provider: Provider = self.enter(Provider())
        return provider

    def backend(self, provider: Any = None, *flags: str, start: bool = True, **options: Any) -> Backend:
        """Start a backend with a new data folder; *provider* is its Ollama.

        :param provider: has a `url`
        """
        self._count += 1
        url = provider.url if provider is not None else "http://127.0.0.1:9"
        options.setdefault("BACKEND_ENABLE", "ollama")
        entry = {"base_url": f"{url}/v1", "model": "tiny"}
        backend = Backend(
            options.pop("data", self.folder / f"data{self._count}"),
            *flags,
            providers={"ollama": entry},
            **options,
        )
        if start:
            self.enter(backend)
        else:
            self.stack.callback(backend.kill)
        return backend
