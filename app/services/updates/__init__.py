"""Newer versions of installed models: found in their registries, fetched when asked or once a day."""
