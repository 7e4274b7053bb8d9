"""The loaded models: one llama.cpp process for each, started, shared out, watched and ended here.

:mod:`~app.engine.runners.runner` is the process itself: it imports nothing else of this package.
"""
