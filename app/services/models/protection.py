"""Keep protected models from being deleted, and installed models from being replaced by mistake."""

from __future__ import annotations

from collections.abc import Iterable

from app.errors import ModelExists, ModelProtected
from app.model_name import ModelName
from app.schemas.models import InstalledModel
from app.services.ollama import find_model, key_of
from app.services.settings import SettingsStore


class Protection:
    """Checks model names against the settings' ``protected_models`` and the installed models."""

    def __init__(self, settings: SettingsStore) -> None:
        self._settings = settings

    def check(self, model: str) -> None:
        """Check that *model* may be deleted or replaced.

        :raises ModelProtected: when the settings protect it
        """
        names = self._settings.all()["protected_models"]
        if key_of(model) in map(key_of, names):
            raise ModelProtected(
                f"The model '{model}' is protected: it is neither deleted nor replaced.",
                hint="Take it out of `protected_models` first: PUT /api/settings",
                details={"model": model, "protected_models": names},
            )

    def check_free(self, name: ModelName, listed: Iterable[InstalledModel], *, overwrite: bool) -> None:
        """Check that a new model may take this *name*.

        :param listed: the installed models
        :param overwrite: whether the new model may replace an installed model
        :raises ModelExists: when a model has this name, and *overwrite* is false
        :raises ModelProtected: when a model has this name, and the settings protect it
        """
        if find_model(listed, str(name)) is None:
            return
        if not overwrite:
            raise ModelExists(
                f"There is a model '{name}' already.",
                hint='Choose another name, or add "overwrite": true to replace it.',
                details={"model": str(name)},
            )
        self.check(str(name))
