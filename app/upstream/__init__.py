"""Bytes, connections and failures of whatever answers our requests.

Nothing here knows a provider or a model: :mod:`session` and :mod:`transport` send requests, :mod:`reading`
reads answers without being held up, :mod:`failures` says what went wrong.
"""
