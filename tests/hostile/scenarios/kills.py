"""SIGKILL at random moments; after each start everything that was acknowledged is there, and nothing is stuck."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

from tests.engine.process import EngineProcess
from tests.hostile.client import ask
from tests.hostile.processes import Backend, wait_until
from tests.hostile.provider import Provider, echo
from tests.hostile.run import Run
from tests.registry import Registry

PULLS = "/api/providers/ollama/pulls"
CHAT = {"provider": "echo", "model": "tiny"}


class Clients:
    """Clients that change things all the time, and remember what was acknowledged."""

    def __init__(self, run: Run, backend: Backend, registry: Registry, digests: dict[str, str]) -> None:
        self._run, self._backend, self._registry = run, backend, registry
        self.digests = digests  # of the registry's models
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.said: dict[str, list[str]] = {}  # by conversation: the messages whose answer was complete
        self.imported: dict[str, int] = {}  # by conversation: its number of messages
        self.prompts = [""]  # the last acknowledged system prompt, and those that were sent after it
        self.temperature: list[float | None] = [None]
        self.pulls: dict[str, str] = {}  # by id: the model
        self._names = iter(digests)
        self._numbers = itertools.count(1)

    def start(self) -> None:
        self._stopping.clear()
        jobs = [self._chat, self._chat, self._import, self._set, self._pull]
        self._threads = [threading.Thread(target=self._repeat, args=(job,), daemon=True) for job in jobs]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def answered(self) -> int:
        """How many chats were answered."""
        return sum(map(len, list(self.said.values())))

    def _repeat(self, job: Any) -> None:
        while not self._stopping.is_set():
            job()

    def _chat(self) -> None:
        created = ask(self._backend, "/api/conversations", {"title": "Kill"})
        if created.status != 201:
            self._stopping.wait(0.05)
            return
        id = created.body["id"]
        self.said[id] = []
        for _ in range(3):
            message = f"m{next(self._numbers)}"
            body = {"message": message, "conversation_id": id, "stream": self._run.rng.random() < 0.5, **CHAT}
            answer = ask(self._backend, "/api/chat", body, timeout=20)
            if answer.terminal != ["done"]:
                return
            self.said[id].append(message)

    def _import(self) -> None:
        count = self._run.rng.randrange(1, 30)
        messages = [{"role": "user", "content": f"i{number}"} for number in range(count)]
        body = {"version": 1, "title": "Import", "messages": messages}
        answer = ask(self._backend, "/api/conversations/import", body)
        if answer.status == 201:
            self.imported[answer.body["conversations"][0]["id"]] = count
        self._stopping.wait(0.2)

    def _set(self) -> None:
        prompt = f"p{next(self._numbers)}"
        self.prompts.append(prompt)
        answer = ask(self._backend, "/api/settings", {"system_prompt": prompt}, method="PUT")
        if answer.status == 200:
            self.prompts = [prompt]
        self._stopping.wait(0.05)

    def _pull(self) -> None:
        name = next(self._names, None)
        if name is None:
            self._stopping.wait(0.2)
            return
        body = {"model": self._registry.name(name), "insecure": True, "background": True}
        answer = ask(self._backend, "/api/providers/ollama/pull", body)
        if answer.status == 202:
            self.pulls[answer.body["id"]] = name
        self._stopping.wait(0.5)


def run(run: Run) -> None:
    provider = run.provider()
    provider.delay = 0.02
    registry: Registry = run.enter(Registry())
    registry.faults.bytes_per_second = 1_500_000
    kills = run.pick(3, 30)
    digests = {f"library/m{n}:1": _add(run, registry, f"library/m{n}:1") for n in range(kills)}
    engine = run.enter(EngineProcess(run.folder / "models"))
    backend = run.backend(engine)
    backend.call("POST", "/api/providers", _echo(provider))
    clients = Clients(run, backend, registry, digests)
    for number in range(kills):
        clients.start()
        goal = clients.answered + run.rng.randrange(8)
        wait_until(lambda goal=goal: clients.answered >= goal, 10)  # type: ignore[misc]
        time.sleep(run.rng.uniform(0, 0.5))  # the moment of the kill is what chance decides
        backend.kill()
        clients.stop()
        backend.start()
        if not run.result.check(
            backend.wait_for_health(), f"kill {number}: does not start: {backend.log[-300:]}"
        ):
            return
        _check_kept(run, backend, clients, number)
    provider.delay = 0
    _check_pulls(run, backend, clients)
    _check_conversations(run, backend, clients)
    counts = f"{clients.answered} chats, {len(clients.imported)} imports, {len(clients.pulls)} pulls"
    run.result.note(f"{kills} kills, {counts} acknowledged")
    run.result.check(not backend.traceback, f"a traceback: {backend.traceback}")


def _add(run: Run, registry: Registry, name: str) -> str:
    return registry.add_model(name, {"model": run.rng.randbytes(700_000), "params": b"{}"})


def _echo(provider: Provider) -> dict[str, Any]:
    return {"id": "echo", "name": "Echo", "base_url": f"{provider.url}/v1", "enabled": True, "model": "tiny"}


def _check_kept(run: Run, backend: Backend, clients: Clients, number: int) -> None:
    """What was acknowledged before the kill is there after it."""
    prompt = backend.get("/api/settings")["system_prompt"]
    run.result.check(
        prompt in clients.prompts, f"kill {number}: the prompt {prompt!r} is none of {clients.prompts}"
    )
    clients.prompts = [prompt]
    providers = set(backend.get("/api/providers"))
    run.result.check("echo" in providers, f"kill {number}: the provider is gone")
    pulls = {pull["id"] for pull in backend.get(PULLS)["pulls"]}
    run.result.check(set(clients.pulls) <= pulls, f"kill {number}: a pull is gone")


def _check_conversations(run: Run, backend: Backend, clients: Clients) -> None:
    for id, count in clients.imported.items():
        found = backend.get(f"/api/conversations/{id}?limit=1000")
        run.result.check(
            len(found.get("messages", [])) == count, f"an import has lost messages: {found}"[:300]
        )
    for id, said in clients.said.items():
        found = backend.get(f"/api/conversations/{id}?limit=1000").get("messages")
        run.result.check(found is not None, f"conversation {id} is gone")
        rows = [(row["role"], row["content"].strip(), row["status"]) for row in found or []]
        for message in said:
            place = (
                rows.index(("user", message, "complete")) if ("user", message, "complete") in rows else None
            )
            answer = None if place is None else rows[place + 1]
            run.result.check(answer == ("assistant", echo(message), "complete"), f"{message}: {rows}"[:300])
    stuck = {id for id in clients.said if not _is_free(backend, id)}
    # The heartbeat of an answer whose process is dead is believed for 30 seconds.
    wait_until(lambda: not {id for id in stuck if not _is_free(backend, id)}, 45, 1)
    for id in stuck:
        body = {"message": "still there?", "conversation_id": id, **CHAT}
        answer = ask(backend, "/api/chat", body)
        run.result.check(answer.status == 200, f"a conversation is stuck: {answer.describe()}")


def _is_free(backend: Backend, id: str) -> bool:
    rows = backend.get(f"/api/conversations/{id}?limit=1000").get("messages") or []
    return all(row["status"] != "pending" for row in rows)


def _check_pulls(run: Run, backend: Backend, clients: Clients) -> None:
    clients._registry.faults.bytes_per_second = 0

    def unfinished() -> list[dict[str, Any]]:
        found = backend.get(PULLS)["pulls"]
        return [pull for pull in found if pull["status"] not in {"done", "failed", "cancelled"}]

    wait_until(lambda: not unfinished(), run.pick(30, 90), 0.3)
    installed = {
        model["name"]: model["digest"] for model in backend.get("/api/providers/ollama/models")["models"]
    }
    states = {pull["id"]: pull for pull in backend.get(PULLS)["pulls"]}
    for id, name in clients.pulls.items():
        status = states[id]["status"]
        run.result.check(status == "done", f"the pull of {name} is {status}: {states[id]['error']}")
        digest = installed.get(clients._registry.name(name))
        run.result.check(digest == f"sha256:{clients.digests[name]}", f"{name} has the digest {digest}")
