"""Check a live backend and its Ollama from end to end.

    python test_ollama_endpoints.py [--base-url URL] [--ollama-url URL] [--model NAME] [--pull-model NAME]

It prints each check and its time, and exits with 0 only if all checks passed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests

Json = dict[str, Any]

START_HINT = "Start it with `make run`, or `python backend_server.py --ollama auto --enable ollama`."


class Failed(Exception):
    """A check failed; the text says why."""


class Checks:
    """The checks, in the order in which a user would try the features."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.base_url: str = options.base_url.rstrip("/")
        self.ollama_url: str = options.ollama_url.rstrip("/")
        self.model: str | None = options.model
        self.pull_model: str | None = options.pull_model
        self.session = requests.Session()
        if key := os.environ.get("BACKEND_API_KEY"):
            self.session.headers["Authorization"] = f"Bearer {key}"

    def ollama_answers(self) -> str:
        """Ollama answers."""
        answer = requests.get(f"{self.ollama_url}/api/version", timeout=10)
        if answer.status_code != 200:
            raise Failed(f"HTTP {answer.status_code} from {self.ollama_url}: not an Ollama.")
        return f"version {answer.json().get('version')}"

    def lists_models(self) -> str:
        """The backend lists the models."""
        answer = self._call("GET", "/api/providers/ollama/models")
        models = answer["models"]
        if answer["total"] != len(models):
            raise Failed(f"total is {answer['total']}, but {len(models)} models are listed.")
        for model in models:
            if not model["digest"].startswith("sha256:") or not model["modified_at"].endswith("Z"):
                raise Failed(f"The digest or modified_at of {model['name']} is malformed: {model}")
        return ", ".join(model["name"] for model in models) or "none installed yet"

    def pulls(self) -> str:
        """The backend pulls a small model."""
        model = self._model_to_pull()
        registry = model.partition("/")[0]
        insecure = registry.startswith(("127.0.0.1", "localhost"))
        body = {"model": model, **({"insecure": True} if insecure else {})}
        answer = self._call("POST", "/api/providers/ollama/pull", body, timeout=3600)
        if answer["success"] is not True or answer["status_log"][-1]["status"] != "success":
            raise Failed(f"The pull did not end with success: {answer}")
        return f"{answer['message']}, {len(answer['status_log'])} steps"

    def chats(self) -> str:
        """The backend answers a chat."""
        answer = self._call("POST", "/api/chat", self._question(), timeout=600)
        missing = {"response", "provider", "model", "tokens", "response_time"} - set(answer)
        if missing:
            raise Failed(f"The answer lacks {', '.join(sorted(missing))}: {answer}")
        if not answer["response"].strip():
            raise Failed(f"The answer is empty: {answer}")
        return f"{answer['model']}, {answer['tokens']} tokens: {answer['response'].strip()[:60]!r}"

    def streams(self) -> str:
        """The backend streams a chat."""
        body = {**self._question(), "stream": True}
        with self.session.post(f"{self.base_url}/api/chat", json=body, stream=True, timeout=600) as response:
            if response.status_code != 200:
                raise Failed(_explain(response))
            events = list(_events(response))
        names = [name for name, _ in events]
        if names[0] != "start" or names[-1] != "done" or set(names[1:-1]) - {"delta"}:
            raise Failed(f"The stream is not start, delta..., done: {names} {events[-1][1]}")
        text = "".join(data.get("content", "") for name, data in events if name == "delta")
        if text != events[-1][1]["response"]:
            raise Failed("The deltas do not add up to the response.")
        return f"{len(names) - 2} deltas, {events[-1][1]['tokens']} tokens"

    def refuses_bad_input(self) -> str:
        """The backend says what is wrong with a request."""
        response = self.session.post(f"{self.base_url}/api/providers/ollama/pull", json={}, timeout=30)
        if response.status_code != 400 or response.json().get("error") != "Model name is required":
            raise Failed(_explain(response))
        return "400 Model name is required"

    def _question(self) -> Json:
        question: Json = {
            "message": "Say hello in five words.",
            "provider": "ollama",
            "system_prompt": "You are brief.",
        }
        return {**question, "model": self.model} if self.model else question

    def _model_to_pull(self) -> str:
        """Return --pull-model, else an installed model: pulling that again downloads nothing new."""
        if self.pull_model:
            return self.pull_model
        installed = self._call("GET", "/api/providers/ollama/models")["models"]
        names = [model["name"] for model in installed]
        return "smollm2:135m" if not names or "smollm2:135m" in names else names[-1]

    def _call(self, method: str, path: str, body: Json | None = None, timeout: float = 30) -> Json:
        response = self.session.request(method, f"{self.base_url}{path}", json=body, timeout=timeout)
        if response.status_code != 200:
            raise Failed(_explain(response))
        answer: Json = response.json()
        return answer


def _explain(response: requests.Response) -> str:
    try:
        body = response.json()
        return f"HTTP {response.status_code}: {body['error']} {body.get('hint', '')}".strip()
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code} that is not the backend's: {response.text[:200]!r}"


def _events(response: requests.Response) -> Iterator[tuple[str, Json]]:
    name = ""
    for line in response.iter_lines():
        if line.startswith(b"event: "):
            name = line[7:].decode()
        elif line.startswith(b"data: "):
            yield name, json.loads(line[6:])


def _run(check: Callable[[], str]) -> bool:
    started = time.monotonic()
    try:
        outcome, passed = check(), True
    except Failed as exc:
        outcome, passed = str(exc), False
    except requests.ConnectionError as exc:
        url = exc.request.url if exc.request is not None else "the server"
        outcome, passed = f"No answer from {url}. {START_HINT}", False
    except (requests.exceptions.MissingSchema, requests.exceptions.InvalidURL) as exc:
        outcome, passed = f"{exc} Give a URL such as http://127.0.0.1:8002", False
    except requests.Timeout:
        outcome, passed = "No answer in time; see the server's log.", False
    except (requests.RequestException, ValueError, LookupError) as exc:
        outcome, passed = f"The answer is malformed ({type(exc).__name__}: {exc}).", False
    seconds = time.monotonic() - started
    print(f"{'ok    ' if passed else 'FAILED'} {check.__doc__} ({seconds:.2f} s)\n       {outcome}")
    return passed


def main() -> int:
    """Run the checks; return the exit code."""
    parser = argparse.ArgumentParser(description="Check a live backend and its Ollama.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8002", help="the backend")
    parser.add_argument("--ollama-url", default="http://localhost:11434", help="its Ollama")
    parser.add_argument("--model", help="the model to chat with (default: the backend's choice)")
    parser.add_argument("--pull-model", help="a small model to pull (default: an installed one)")
    checks = Checks(parser.parse_args())
    print(f"Checking the backend at {checks.base_url} with Ollama at {checks.ollama_url}")
    started = time.monotonic()
    passed = [
        _run(check)
        for check in (
            checks.ollama_answers,
            checks.lists_models,
            checks.pulls,
            checks.chats,
            checks.streams,
            checks.refuses_bad_input,
        )
    ]
    print(f"{sum(passed)} of {len(passed)} passed in {time.monotonic() - started:.1f} s")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
