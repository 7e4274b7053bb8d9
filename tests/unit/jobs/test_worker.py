"""The work on one pull."""

from __future__ import annotations

import pytest
from flask import Flask

from app.config import Config
from app.errors import StorageFailed


def test_pull_stays_queued_when_the_providers_cannot_be_read(app: Flask, config: Config) -> None:
    services = app.extensions["services"]
    pull = services.pull_store.join("localhost:9/x/a", "localhost:9/x/a:latest", insecure=True, anytime=True)
    providers = config.data_dir / "providers.json"
    providers.unlink(missing_ok=True)
    providers.symlink_to(providers)  # a link to itself: reading it fails, for root too

    with pytest.raises(StorageFailed):
        services.worker.run(pull.id)

    assert services.pull_store.get(pull.id).status == "queued"
    assert services.pull_store.want(pull.id, "paused").status == "paused"
