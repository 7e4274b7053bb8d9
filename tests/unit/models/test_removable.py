"""Which models can go: never one that may be needed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import responses
from flask.testing import FlaskClient
from sqlalchemy import update

from app.services.models.disk import freed_together
from app.services.models.removable import Known, verdicts
from app.services.ollama.names import key_of
from app.storage.database import KeptVersion, ModelUse, Occasion

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)
OLLAMA = "http://gpu.test:11434"


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def model(name: str, digest: str = "", *, days: float = 100) -> dict[str, Any]:
    return {"name": name, "digest": digest or name, "modified_at": ago(days), "size": 10}


def former(name: str, digest: str = "", *, days: float = 5, status: str = "kept") -> KeptVersion:
    return KeptVersion(
        name=name,
        model="a:1",
        key=key_of("a:1"),
        digest=digest or name,
        status=status,
        created_at=ago(days),
    )


def known(**more: Any) -> Known:
    nothing: frozenset[str] = frozenset()
    known = Known({}, ago(100), protected=nothing, pinned=nothing, running=[], kept=[], now=NOW)
    return replace(known, **more)


def safe(listed: list[dict[str, Any]], known: Known) -> set[str]:
    found = verdicts(listed, known)
    assert all(reason.endswith(".") for _, reason in found.values())
    return {each["name"] for each in listed if found[key_of(each["name"])][0]}


@pytest.mark.parametrize(
    ("facts", "is_safe"),
    [
        ({}, True),
        ({"uses": {key_of("a:1"): ago(31)}}, True),
        ({"uses": {key_of("a:1"): ago(29)}}, False),
        ({"watched_since": ago(29)}, False),  # whoever used it before that was not seen
        ({"watched_since": ago(29), "uses": {key_of("a:1"): ago(31)}}, True),
        ({"protected": frozenset({key_of("A:1")})}, False),
        ({"pinned": frozenset({key_of("a:1")})}, False),
        ({"running": [{"name": "a:1", "digest": "a:1"}]}, False),
        ({"running": [{"name": "other:1", "digest": "a:1"}]}, False),
    ],
)
def test_model_is_safe_to_remove_when_nobody_used_it_for_long(facts: dict[str, Any], is_safe: bool) -> None:
    assert safe([model("a:1")], known(**facts)) == ({"a:1"} if is_safe else set())


def test_model_that_was_installed_lately_is_never_safe() -> None:
    assert safe([model("a:1", days=29)], known()) == set()
    assert safe([model("a:1", days=29)], known(uses={key_of("a:1"): ago(40)})) == set()


def test_of_two_names_of_a_model_one_stays() -> None:
    listed = [model("a:1", "x", days=10), model("b:1", "x", days=20)]

    found = verdicts(listed, known())

    assert safe(listed, known()) == {"b:1"}
    assert "a:1" in found[key_of("b:1")][1]
    assert safe(listed, known(protected=frozenset({key_of("b:1")}))) == {"a:1"}
    assert safe(listed, known(uses={key_of("b:1"): ago(2)})) == {"a:1"}
    assert safe([model("a:1", "x", days=3), model("b:1", "x", days=3)], known()) == set()


@pytest.mark.parametrize(
    ("rows", "installed", "expected"),
    [
        ([former("a:1-prev-1")], "new", set()),  # a rollback leads to it
        ([former("a:1-prev-1", days=31)], "new", {"a:1-prev-1"}),
        ([former("a:1-prev-1", days=31)], None, set()),  # all that is left
        ([former("a:1-prev-1", status="pending")], "new", set()),
        ([former("a:1-prev-1"), former("a:1-prev-2", days=6)], "new", {"a:1-prev-2"}),
        ([former("a:1-prev-1", "new"), former("a:1-prev-2", days=6)], "new", {"a:1-prev-1"}),
    ],
    ids=["way-back", "old", "orphan", "pending", "older", "same"],
)
def test_former_version_is_safe_when_no_rollback_leads_to_it_or_none_came(
    rows: list[KeptVersion], installed: str | None, expected: set[str]
) -> None:
    listed = [model(row.name, row.digest) for row in rows]
    listed += [model("a:1", installed, days=1)] if installed else []

    assert safe(listed, known(kept=rows)) == expected


def test_former_version_that_is_used_by_its_own_name_stays() -> None:
    listed = [model("a:1", "new", days=1), model("a:1-prev-1")]
    rows = [former("a:1-prev-1", days=31)]

    assert safe(listed, known(kept=rows, uses={key_of("a:1-prev-1"): ago(3)})) == set()


def test_removing_together_frees_what_no_other_model_uses_once() -> None:
    sizes = {"a": {"w": 100, "t": 1}, "b": {"w": 100, "u": 2}, "c": {"v": 7, "u": 2}}

    assert freed_together({"a", "b"}, sizes) == 101
    assert freed_together({"a"}, sizes) == 1
    assert freed_together(sizes, sizes) == 110


def test_disk_says_what_is_protected_and_what_can_go(
    client: FlaskClient, wire: responses.RequestsMock
) -> None:
    client.patch("/api/providers/ollama", json={"base_url": f"{OLLAMA}/v1", "enabled": True})
    client.put("/api/settings", json={"protected_models": ["B:1"]})
    listed = [
        {"name": name, "size": size, "digest": digest * 64, "modified_at": "2026-01-01T00:00:00Z"}
        for name, size, digest in [("a:1", 5, "0"), ("b:1", 7, "1"), ("c:1", 9, "2")]
    ]
    wire.get(f"{OLLAMA}/api/tags", json={"models": listed})
    wire.get(f"{OLLAMA}/api/ps", json={"models": []})
    path = "/api/providers/ollama/disk"
    first: Any = client.get(path).json
    database = client.application.extensions["services"].database
    with database.session() as session:
        session.execute(update(Occasion).values(at=datetime(2026, 1, 1, tzinfo=timezone.utc)))
        session.add(ModelUse(provider="ollama", key=key_of("c:1")))

    answer: Any = client.get(path).json

    found = {each["model"]: each for each in answer["models"]}
    assert first["safe_to_remove_bytes"] == 0
    assert {name: each["safe_to_remove"] for name, each in found.items()} == {
        "a:1": True, "b:1": False, "c:1": False,
    }  # fmt: skip
    assert {name for name, each in found.items() if each["protected"]} == {"b:1"}
    assert "not used" in found["a:1"]["reason"]
    assert answer["safe_to_remove_bytes"] == 5
