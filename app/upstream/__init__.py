"""Connections to upstream servers: send requests, read answers, and turn failures into our errors.

Nothing here knows a provider or a model. :mod:`session` sends requests for the library requests, and
:mod:`transport` for the openai client; :mod:`reading` reads the answers; :mod:`failures` makes the errors.
"""
