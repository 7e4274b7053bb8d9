"""The runner: one llama.cpp server with one model, a child process of the engine.

It reads its order, one line of JSON, from stdin; that keeps the API key out of the process list.
It answers with one line: ``{"address"}`` once the model is loaded, or ``{"error"}``. It ends when
stdin does, so it never outlives the engine, however that ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

NOT_INSTALLED = "llama.cpp is not installed: pip install xllamacpp"


def main() -> int:
    """Load the model that the order names and serve it until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine, which then ends us
    order = json.loads(sys.stdin.readline())
    answers = _claim_stdout()
    try:
        import xllamacpp  # here: its absence is an answer too

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
    """Keep stdout for our answer; what llama.cpp prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def parameters(params: Any, order: dict[str, Any]) -> Any:
    """Fill llama.cpp's *params* in as the engine's *order* says."""
    params.model.path = order["path"]
    params.mmproj.path = order.get("projector", "")
    params.n_parallel = order["parallel"]
    params.n_ctx = order["num_ctx"] * order["parallel"]  # shared out: every slot has num_ctx
    params.embedding = order["embedding"]
    params.n_batch = 512  # between two batches of a long prompt it sees that its client left
    if order["embedding"]:  # a text is pooled in one piece
        params.n_batch = params.n_ubatch = order["num_ctx"]
    if order.get("chat_template"):
        params.chat_template = order["chat_template"]
    # Left unset, llama.cpp takes every core of the machine, which is 16 times slower in a container
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
    """Count the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
