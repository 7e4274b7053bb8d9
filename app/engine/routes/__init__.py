"""The routes: Ollama's own ``/api/*``, and OpenAI's ``/v1/*`` as Ollama answers them.

Each ``*_routes(services)`` builds the blueprint of one group of routes.
"""
