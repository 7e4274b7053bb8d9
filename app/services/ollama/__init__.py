"""One Ollama server: its own API, its models folder, its registries, and the names of its models.

Where no server runs, :mod:`launcher` starts one.
"""
