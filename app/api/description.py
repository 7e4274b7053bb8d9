"""The API as a whole: its description, and what answers its errors."""

from __future__ import annotations

import threading
from typing import Any

import flask_smorest
from flask import Flask
from werkzeug.exceptions import HTTPException

from app.api.base import Blueprint, answer_http_error, answer_service_error, answer_unexpected_error
from app.errors import ServiceError
from app.schemas.base import ErrorSchema


class Api(flask_smorest.Api):  # type: ignore[misc]  # flask-smorest has no types
    """The API, whose errors all have the same body.

    Its description is made when it is first asked for, because that takes longer than the rest of the start.
    """

    ERROR_SCHEMA = ErrorSchema

    def __init__(self, app: Flask) -> None:
        self._undocumented: list[Blueprint] = []
        self._making = threading.RLock()
        super().__init__(app)

    @property
    def spec(self) -> Any:
        """The description of the API, an :class:`apispec.APISpec`."""
        with self._making:
            undocumented, self._undocumented = self._undocumented, []
            for blp in undocumented:
                blp.register_views_in_doc(self, self._app, self._spec, name=blp.name, parameters=None)
                self._spec.tag({"name": blp.name, "description": blp.description})
        return self._spec

    @spec.setter
    def spec(self, value: Any) -> None:
        self._spec = value

    def register_blueprint(self, blp: Blueprint) -> None:
        """Register the views of *blp*."""
        self._app.extensions["flask-smorest"]["blp_name_to_api"][blp.name] = self
        self._app.register_blueprint(blp)
        self._undocumented.append(blp)

    def _register_error_handlers(self) -> None:
        app: Flask = self._app
        app.register_error_handler(HTTPException, answer_http_error)
        app.register_error_handler(ServiceError, answer_service_error)
        app.register_error_handler(Exception, answer_unexpected_error)
