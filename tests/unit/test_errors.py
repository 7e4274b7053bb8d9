"""What every failure has in common."""

from __future__ import annotations

from app import errors
from app.errors import Conflict, PullWaits, ServiceError, StorageFailed, kept, restored


def test_error_that_was_kept_is_restored_whole() -> None:
    error = restored(kept(PullWaits("It waits.", hint="Start it now.", details={"a": 1}, retry_after=2.1)))

    assert type(error) is PullWaits
    assert error.body("r") == {
        "error": "It waits.",
        "error_type": "pull_waits",
        "hint": "Start it now.",
        "details": {"a": 1, "retry_after": 3},
        "request_id": "r",
    }


def test_error_of_a_full_disk_is_restored_with_its_status() -> None:
    error = restored(kept(StorageFailed("The disk is full.", details={"reason": "full"})))

    assert (type(error), error.status) == (StorageFailed, 507)


def test_error_that_a_newer_release_has_kept_is_restored_with_its_text() -> None:
    error = restored({"error": "It is so.", "error_type": "unheard_of", "hint": "Mend it.", "details": {}})

    assert type(error) is ServiceError
    assert (error.message, error.hint) == ("It is so.", "Mend it.")


def test_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn = {
        (words[0], int(words[1]))
        for line in (errors.__doc__ or "").splitlines()
        if line.startswith("    ") and (words := line.strip(" │├└─").split())
    }

    def tree(error: type[ServiceError]) -> set[tuple[str, int]]:
        below = (tree(subclass) for subclass in error.__subclasses__())
        own = {(error.__name__, int(error.status))} if error.__module__.startswith("app.errors") else set()
        return own.union(*below)

    assert drawn == tree(ServiceError)


def test_every_error_but_the_base_of_conflicts_has_a_slug_of_its_own() -> None:
    def all_of(error: type[ServiceError]) -> list[type[ServiceError]]:
        return [error, *(found for subclass in error.__subclasses__() for found in all_of(subclass))]

    slugs = [error.error_type for error in all_of(ServiceError) if error is not Conflict]

    assert len(slugs) == len(set(slugs))
