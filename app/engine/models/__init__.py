"""The installed models: their manifests and blobs on disk, and what those say about a model.

:class:`~app.engine.models.store.ModelStore` is the models folder; the other modules read and fill it.
"""
