"""Updates of installed models: found in their registries, pulled on request or once a day.

``UpdateService`` is for the views, ``DailyUpdate`` for the worker.
"""
