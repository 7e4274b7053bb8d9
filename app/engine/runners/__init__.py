"""The loaded models: one llama.cpp process for each; starts, shares and stops these processes.

:mod:`~app.engine.runners.runner` is the process itself; it imports nothing of ``app``, to stay small.
"""
