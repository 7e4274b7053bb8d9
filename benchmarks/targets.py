"""The servers that are measured: the upstream, other gateways, this backend and another checkout of it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.target import ROOT, Target, free_port
from benchmarks.wire import MODELS

LITELLM = Path(os.environ.get("BENCH_LITELLM", ROOT / "benchmarks" / ".litellm"))
PORTKEY = Path(os.environ.get("BENCH_PORTKEY", ROOT / "benchmarks" / ".portkey"))

OTHERS = ("nginx", "litellm", "portkey")
OURS = ("chat", "v1", "gunicorn", "gunicorn2")
KINDS = (*OTHERS, *OURS)
"""The words for the targets beside the upstream."""

_GTHREAD = ["-k", "gthread", "--threads", "600", "--worker-connections", "2000", "--backlog", "1024"]

_NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream model {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def targets(
    folder: Path, only: Sequence[str], beside: Sequence[Path] = (), servers: Sequence[str] = ()
) -> Iterator[Target]:
    """Yield the upstream, then the targets of the kinds in *only*; those that are not installed are left out.

    :param beside: other checkouts of this backend, each with its own ``.venv``
    :param servers: commands that start this backend with another server, with ``{port}``
    """
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.upstream", str(port)]
    yield Target("upstream", "the upstream itself", command, port, folder, "/api/version")
    for make in (_nginx, _litellm, _portkey):
        if make.__name__[1:] in only:
            target = make(folder, port)
            if target is None:
                print(f"{make.__name__[1:]} is not installed: left out.", file=sys.stderr)
            else:
                yield target
    for kind in filter(only.__contains__, OURS):
        for checkout in (ROOT, *beside):  # one after the other: the machine is the same for both
            yield _backend(kind, checkout.resolve(), folder, port)
    for server in servers:
        yield _server(server, folder, port)


def _nginx(folder: Path, upstream: int) -> Target | None:
    program = shutil.which("nginx")
    if program is None:
        return None
    port, config = free_port(), folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, upstream=upstream, port=port))
    told = _output([program, "-v"])
    return Target(
        "nginx", "nginx", [program, "-c", str(config)], port, folder, version=told.rpartition("/")[2]
    )


def _litellm(folder: Path, upstream: int) -> Target | None:
    program = LITELLM / "bin" / "litellm"
    if not program.exists():
        return None
    base = {"api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}
    models = [{"model_name": "*", "litellm_params": {"model": "openai/*", **base}}]
    config = folder / "litellm.yaml"  # JSON is YAML
    config.write_text(json.dumps({"model_list": models}))
    port = free_port()
    command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    code = "from importlib.metadata import version; print(version('litellm'))"
    told = _output([str(LITELLM / "bin" / "python"), "-c", code])
    env = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}  # no target checks a key
    return Target(
        "litellm", "LiteLLM proxy", command, port, folder, "/health/liveliness", env=env, version=told
    )


def _portkey(folder: Path, upstream: int) -> Target | None:
    package, node = PORTKEY / "node_modules" / "@portkey-ai" / "gateway", shutil.which("node")
    if node is None or not package.exists():
        return None
    port = free_port()
    command = [node, str(package / "build" / "start-server.js"), f"--port={port}", "--headless"]
    headers = {
        "Authorization": "Bearer none",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
    }
    version = json.loads((package / "package.json").read_text())["version"]
    return Target("portkey", "Portkey gateway", command, port, folder, "/", headers=headers, version=version)


def _backend(kind: str, checkout: Path, folder: Path, upstream: int) -> Target:
    """Return the backend of *checkout*, as `backend_server.py` or in gunicorn."""
    port = free_port()
    python = _python(checkout)
    if kind.startswith("gunicorn"):
        workers = "2" if kind == "gunicorn2" else "1"
        bind = ["-w", workers, "-b", f"127.0.0.1:{port}", "app.wsgi:app"]
        command = [python, "-m", "gunicorn", *_GTHREAD, *bind]
        name = f"gunicorn, {workers} {'process' if workers == '1' else 'processes'}"
    else:
        command = [python, "backend_server.py", "--port", str(port)]
        name = f"backend_server.py {'/v1' if kind == 'v1' else '/api/chat'}"
    before = "" if checkout == ROOT else checkout.name
    target = _ours(kind, f"{before}: {name}" if before else name, command, port, folder, upstream)
    target.checkout, target.before = checkout, before
    if kind == "v1":
        target.chat = "/v1/chat/completions"
    return target


def _server(server: str, folder: Path, upstream: int) -> Target:
    """Return this backend in a server that *server* starts."""
    port = free_port()
    command = shlex.split(server.replace("{port}", str(port)))
    name = " ".join(Path(word).name for word in shlex.split(server) if "{port}" not in word)
    return _ours(server, name, command, port, folder, upstream)


def _ours(kind: str, name: str, command: list[str], port: int, folder: Path, upstream: int) -> Target:
    """Return a backend with a data folder of its own and the upstream as its Ollama."""
    data = folder / f"data-{port}"
    data.mkdir()
    provider = {"base_url": f"http://127.0.0.1:{upstream}/v1", "model": MODELS[0]}
    (data / "providers.json").write_text(json.dumps({"ollama": provider}))
    env = {"BACKEND_DATA_DIR": str(data), "BACKEND_ENABLE": "ollama"}
    return Target(kind, name, command, port, folder, "/api/health", "/api/chat", env=env)


def _python(checkout: Path) -> str:
    """Return the interpreter of *checkout*."""
    if checkout == ROOT:
        return sys.executable
    folder, program = (".venv/Scripts", "python.exe") if os.name == "nt" else (".venv/bin", "python")
    return str(checkout / folder / program)


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return (done.stdout + done.stderr).strip()
