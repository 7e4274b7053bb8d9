"""The models that are installed on an Ollama server: listed, loaded, made, deleted, and their disk space.

The services of other packages use ``VersionService`` and ``VersionStore`` (former versions of models) and
``ModelUses`` (their last use); the others here are for the views.
"""
