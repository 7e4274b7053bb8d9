"""The installed models: their manifests and blobs on disk, and their descriptions.

:class:`~app.engine.models.store.ModelStore` is the models folder; the other modules read it and write to it.
"""
