"""What clients ask the engine: Ollama's own ``/api/*``, and OpenAI's ``/v1/*`` as Ollama answers it.

Each ``*_routes(services)`` makes the blueprint of one group of routes.
"""
