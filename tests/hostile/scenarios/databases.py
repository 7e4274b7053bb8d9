"""PostgreSQL and Redis stopped in the middle, and a Redis that is not to be trusted."""

from __future__ import annotations

import pickle
import threading
import time
from typing import Any

from tests.hostile.client import ask
from tests.hostile.processes import Backend, Process, wait_until
from tests.hostile.result import Skipped
from tests.hostile.run import Run
from tests.hostile.servers import Postgres, Redis

PULLS = "/api/providers/ollama/pulls"
_TAKES = {"BRPOP", "BLPOP", "BLMOVE", "LPOP", "RPOP", "BRPOPLPUSH"}


def run(run: Run) -> None:
    try:
        import psycopg  # noqa: F401
        import redis  # noqa: F401
    except ImportError as exc:
        raise Skipped("the drivers of PostgreSQL and Redis are not installed") from exc
    postgres = run.enter(Postgres(run.folder / "postgres"))
    queue = run.enter(Redis(run.folder / "redis"))
    provider = run.provider()
    provider.delay = 0.05
    env = {"BACKEND_DATABASE_URL": postgres.url, "BACKEND_REDIS_URL": queue.url}
    backend = run.backend(provider, **env)
    for number in range(run.pick(1, 4)):
        _stop(run, backend, postgres, f"PostgreSQL, stop {number}", needed=True)
        _stop(run, backend, queue, f"Redis, stop {number}", needed=False)
    _poison(run, backend, queue)
    run.result.check(not backend.traceback, f"a traceback: {backend.traceback}")
    run.result.check(backend.stop() == 0, "SIGTERM does not end it")
    _start_without(run, postgres, env, provider)


def _stop(run: Run, backend: Backend, server: Process, what: str, *, needed: bool) -> None:
    """Kill *server* in the middle of a chat and a pull; start it again some requests later."""
    id = ask(backend, "/api/conversations", {"title": what}).body["id"]
    kept = ask(backend, "/api/chat", {"message": "kept", "conversation_id": id})
    run.result.check(kept.status == 200, f"{what}: before: {kept.describe()}")
    pull = ask(backend, "/api/providers/ollama/pull", {"model": f"m{abs(hash(what))}", "background": True})
    run.result.check(pull.status == 202, f"{what}: before: {pull.describe()}")
    running: dict[str, Any] = {}
    body = {"message": "word " * 30, "conversation_id": id, "stream": True}

    def chat() -> None:
        running["chat"] = ask(backend, "/api/chat", body)

    thread = threading.Thread(target=chat, daemon=True)
    thread.start()
    server.kill()
    for path, sent in (
        ("/api/conversations", {"title": "x"}),
        ("/api/chat", {"message": "Hi", "conversation_id": id}),
        ("/api/providers/ollama/pull", {"model": f"n{abs(hash(what))}", "background": True}),
        (PULLS, None),
        (f"/api/conversations/{id}", None),
        ("/api/usage", None),
    ):
        answer = ask(backend, path, sent, method="POST" if sent else "GET", timeout=30)
        typed = answer.status == 503 and answer.error_type == "storage_failed"
        good = typed or answer.status < 300 or (not needed and answer.status == 409)
        run.result.check(good and not answer.broken, f"{what}: {path}: {answer.describe()}")
    plain = ask(backend, "/api/chat", {"message": "Hi"})
    run.result.check(plain.status == 200, f"{what}: a chat that is not stored: {plain.describe()}")
    run.result.check(backend.is_healthy(), f"{what}: the health does not answer")
    server.start()
    thread.join()
    run.result.check(running["chat"].ended_once, f"{what}: the running chat: {running['chat'].describe()}")
    _check_recovery(run, backend, what, id, pull.body)


def _check_recovery(run: Run, backend: Backend, what: str, id: str, pull: dict[str, Any]) -> None:
    works = wait_until(lambda: ask(backend, "/api/conversations", {"title": "x"}).status == 201, 20, 0.2)
    run.result.check(works, f"{what}: it does not work again")
    over = wait_until(lambda: backend.get(f"{PULLS}/{pull['id']}").get("status") == "done", 40, 0.3)
    run.result.check(over, f"{what}: the pull is {backend.get(PULLS + '/' + pull['id']).get('status')}")
    rows = backend.get(f"/api/conversations/{id}").get("messages", [])
    run.result.check([row["content"] for row in rows[:1]] == ["kept"], f"{what}: lost what was stored")
    body = {"message": "still there?", "conversation_id": id}
    free = wait_until(lambda: ask(backend, "/api/chat", body).status == 200, 45, 0.5)
    run.result.check(free, f"{what}: the conversation is stuck")
    later = ask(backend, "/api/providers/ollama/pull", {"model": f"l{abs(hash(what))}"}, timeout=40)
    run.result.check(later.status == 200, f"{what}: a pull afterwards: {later.describe()}")


class _Bomb:
    """What runs a program when it is unpickled."""

    def __init__(self, marker: str) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return open, (self._marker, "w")


def _poison(run: Run, backend: Backend, queue: Redis) -> None:
    """Whoever writes to Redis must not run code in the backend, nor stop its work."""
    import redis

    marker = run.folder / "pwned"
    poison = [
        pickle.dumps(_Bomb(str(marker))),
        b"",
        b"\xff",
        b"{}",
        b"[" * 100_000,
        b"null",
        b'{"id": "nope"}',
    ]
    with redis.Redis(port=queue.port) as client:
        names = {key for key in client.scan_iter() if client.type(key) in {b"list", b"zset"}}
        names |= {
            b"ollama-backend",
            b"huey.redis.ollamabackend",
            b"huey.redis.ollama-backend",
            b"backend",
            *_queues(client),
        }
        for name in names:
            for message in poison:
                if client.type(name) in {b"list", b"none"}:
                    client.lpush(name, message)
        for channel in client.pubsub_channels():
            for message in poison:
                client.publish(channel, message)
    pull = ask(backend, "/api/providers/ollama/pull", {"model": "poisoned"}, timeout=60)
    run.result.check(pull.status == 200, f"a poisoned Redis: {pull.describe()}")
    run.result.check(not marker.exists(), "a message in Redis ran code in the backend")


def _queues(client: Any) -> set[bytes]:
    """Return the keys that clients of Redis wait at, as the commands of two seconds name them."""
    import redis

    found, until = set(), time.monotonic() + 2
    with client.monitor() as monitor:
        monitor.connection._sock.settimeout(2)
        while time.monotonic() < until:
            try:
                parts = monitor.next_command()["command"].split()
            except (redis.RedisError, OSError):  # nothing came
                break
            if len(parts) > 1 and parts[0].upper() in _TAKES:
                found.add(parts[1].encode())
    return found


def _start_without(run: Run, postgres: Postgres, env: dict[str, str], provider: Any) -> None:
    """A start without its database ends, or waits, with a sentence."""
    postgres.kill()
    backend = run.backend(provider, start=False, **env)
    backend.start()
    wait_until(lambda: not backend.running or backend.is_healthy(), 40, 0.1)
    told = backend.running or "Error: " in backend.log
    run.result.check(told and not backend.traceback, f"a start without PostgreSQL: {backend.log[-400:]}")
