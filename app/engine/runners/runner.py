"""The runner: one llama.cpp server with one model, a child process of the engine.

It reads its order, one line of JSON, from stdin, so that the process list does not show the API key.
It answers with one line: ``{"address"}`` when the model is loaded, or ``{"error"}``. It ends when
stdin is closed, so it ends with the engine, even if the engine is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

NOT_INSTALLED = "llama.cpp is not installed: pip install xllamacpp"


def main() -> int:
    """Load the model of the order, and serve it until stdin is closed; return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine, which then stops this process
    order = json.loads(sys.stdin.readline())
    answers = _claim_stdout()
    try:
        import xllamacpp  # here, because a missing package is answered as an error

        server = xllamacpp.Server(parameters(xllamacpp.CommonParams(), order))
    except ImportError:
        print(json.dumps({"error": NOT_INSTALLED}), file=answers, flush=True)
        return 1
    except (RuntimeError, ValueError):  # llama.cpp has logged the reason
        message = f"unable to load model: {order['path']}"
        print(json.dumps({"error": message}), file=answers, flush=True)
        return 1
    print(json.dumps({"address": server.listening_address}), file=answers, flush=True)
    sys.stdin.read()
    return 0


def _claim_stdout() -> Any:
    """Return stdout for the answer; redirect what llama.cpp prints to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def parameters(params: Any, order: dict[str, Any]) -> Any:
    """Set llama.cpp's *params* as the *order* says; return them."""
    params.model.path = order["path"]
    params.mmproj.path = order.get("projector", "")
    params.n_parallel = order["parallel"]
    params.n_ctx = order["num_ctx"] * order["parallel"]  # llama.cpp divides it: every slot gets num_ctx
    params.embedding = order["embedding"]
    params.n_batch = 512  # llama.cpp notices a closed connection between two batches of a prompt
    if order["embedding"]:  # pooling needs all tokens of a text in one batch
        params.n_batch = params.n_ubatch = order["num_ctx"]
    if order.get("chat_template"):
        params.chat_template = order["chat_template"]
    # By default llama.cpp starts a thread for each core of the machine; in a container with fewer cores
    # that is 16 times slower.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = cores()
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [order["api_key"]]
    params.cors_origins = ""
    params.cors_credentials = False
    params.ui = False
    params.warmup = False
    params.model_alias = {order["alias"]}
    params.verbosity = 1  # errors
    return params


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
