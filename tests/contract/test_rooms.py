"""The structure of the code is as CONTRIBUTING.md describes it."""

from __future__ import annotations

import ast
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.config import ROOT

SERVICES = ROOT / "app" / "services"
SOURCES = [path for path in sorted((ROOT / "app").rglob("*.py")) if "migrations" not in path.parts]
MODULES_AT_MOST = {"a background pull": 32, "a streamed chat": 27, "a /v1 chat": 20}
GENERATORS_AT_MOST = {"a background pull": 1, "a streamed chat": 5, "a /v1 chat": 4}


def packages() -> dict[str, int]:
    """Return the number of modules in each package of ``app.services``."""
    found = {}
    for face in SERVICES.rglob("*/__init__.py"):
        modules = [path for path in face.parent.glob("*.py") if path != face]
        found[str(face.parent.relative_to(SERVICES))] = len(modules)
    return found


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node


def imports(path: Path) -> Iterator[str]:
    """Yield the modules from which a file imports names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_no_package_of_the_services_is_a_hall() -> None:
    sizes = packages()

    assert max(sizes.values()) <= 14, sizes
    assert statistics.median(sizes.values()) <= 4, sizes


def test_every_package_says_what_it_is_for() -> None:
    for name in packages():
        described = ast.get_docstring(ast.parse((SERVICES / name / "__init__.py").read_text()))
        assert described, name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_and_its_functions_are_short(path: Path) -> None:
    long = {f.name: length for f in functions(path) if (length := (f.end_lineno or 0) - f.lineno + 1) > 40}

    assert len(path.read_text().splitlines()) <= 300
    assert not long


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_other_rooms_are_entered_by_their_face(path: Path) -> None:
    own = path.relative_to(ROOT / "app").parts[:2]
    inside = [m for m in imports(path) if re.match(r"app\.services\.\w+\.\w+", m)]

    assert [module for module in inside if tuple(module.split(".")[1:3]) != own] == []


def test_services_say_what_their_dictionaries_hold() -> None:
    """``dict[str, Any]``, also by another name, hides the fields: only few uses of it are allowed."""
    uses = 0
    for path in SERVICES.rglob("*.py"):
        text = path.read_text()
        names = re.findall(r"^(\w+) = dict\[str, Any\]$", text, re.MULTILINE)
        uses += len(re.findall(rf"\b(?:{'|'.join(names)})\b", text)) - len(names) if names else 0
        uses += text.count("dict[str, Any]")

    assert uses < 60, uses


@pytest.fixture(scope="module")
def traces() -> dict[str, Any]:
    """The traces of three requests, from a process of their own: only threads started there are traced."""
    command = [sys.executable, "-m", "tests.tracing"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=100)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize("request_name", MODULES_AT_MOST)
def test_request_passes_few_modules(traces: dict[str, Any], request_name: str) -> None:
    trace = traces[request_name]

    assert len(trace["modules"]) <= MODULES_AT_MOST[request_name], trace["modules"]
    assert len(trace["generators"]) <= GENERATORS_AT_MOST[request_name], trace["generators"]


@pytest.mark.parametrize("request_name", MODULES_AT_MOST)
def test_request_passes_the_modules_that_are_documented(traces: dict[str, Any], request_name: str) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (listed,) = re.findall(rf"^\| {re.escape(request_name)} \| (.*) \|$", text, re.MULTILINE)

    assert re.findall(r"[a-z_0-9.]+", listed) == traces[request_name]["modules"]
