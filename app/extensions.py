"""The objects that each app has one of, for its views."""

from __future__ import annotations

from typing import cast

from flask import current_app
from werkzeug.local import LocalProxy

from app.config import Config
from app.services.chat.context_window import Windows
from app.services.chat.stops import Stops
from app.services.conversations.heartbeats import Heartbeats
from app.services.conversations.store import ConversationStore
from app.services.jobs.queue import Jobs
from app.services.models.uses import ModelUses
from app.services.providers.circuits import Circuits
from app.services.providers.openai_api import OpenAIClients
from app.services.providers.store import ProviderStore
from app.services.pulls.feed import PullFeeds
from app.services.settings import SettingsStore
from app.services.usage.log import UsageLog
from app.storage.database import Database
from app.upstream.session import UpstreamSession
from app.wiring.chats import ChatServices
from app.wiring.models import ModelServices


class Services(ModelServices, ChatServices):
    """What the views of one app call."""


def make_services(config: Config) -> Services:
    """Return the services of an app."""
    database = Database(config.database_url, config.data_dir)
    database.migrate()
    services: Services
    jobs = Jobs(
        config.redis_url,
        config.data_dir,
        config.max_pulls,
        run=lambda id: services.run_pull(id),
        waiting=lambda: services.pull_store.waiting(),
        chores=lambda: services.do_chores(),
    )
    services = Services(
        config=config,
        providers=ProviderStore(
            config.providers_file, config.data_dir / "providers.json", config.enable, config.environ
        ),
        settings=SettingsStore(config.data_dir / "settings.json", config.timeouts),
        clients=OpenAIClients(),
        session=UpstreamSession(),
        database=database,
        jobs=jobs,
        feeds=PullFeeds(),
        model_uses=ModelUses(database),
        windows=Windows(lambda provider: services.hasty_ollama_for(provider)),
        circuits=Circuits(),
        stops=Stops(database),
        heartbeats=Heartbeats(ConversationStore(database)),
        usage=UsageLog(database),
    )
    return services


def _services() -> Services:
    return cast("Services", current_app.extensions["services"])


services = cast("Services", LocalProxy(_services))
