"""An Ollama server: its own API, its models folder, the registries of its models, and their names.

``OllamaServers`` makes the service for a provider, ``ModelFolders`` finds its folder, ``RegistryService``
asks registries, :mod:`names` checks and compares names; where no server runs, :mod:`launcher` starts one.
"""
