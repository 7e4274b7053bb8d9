"""The process of a model imports nothing that it does not use: there is one for each loaded model."""

from __future__ import annotations

import json
import subprocess
import sys

# Taken by them before the model is loaded: 32 MB instead of 12
NOT_NEEDED = {"click", "dotenv", "environs", "flask", "marshmallow", "requests", "werkzeug"}
PACKAGES = {"app", "app.engine", "app.engine.runners"}


def _imported_by_a_runner() -> set[str]:
    """Start a runner as the engine does, with a model that is not there, and list its imports."""
    order = {
        "path": "/nowhere",
        "parallel": 1,
        "num_ctx": 512,
        "embedding": False,
        "alias": "x",
        "api_key": "y",
    }
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "app.engine.runners.runner"],
        input=json.dumps(order) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout) == {"error": "unable to load model: /nowhere"}
    return {
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }


def test_runner_imports_only_itself_and_llama_cpp() -> None:
    imported = _imported_by_a_runner()

    assert {name for name in imported if name.partition(".")[0] == "app"} == PACKAGES
    assert not {name.partition(".")[0] for name in imported} & NOT_NEEDED
    assert "xllamacpp" in imported
