r"""The embedded engine: a small Ollama-compatible server for machines without Ollama.

A program of its own (``python -m app.engine``). Nothing else of ``app`` imports it and it imports
nothing of ``app`` but the grammar of model names::

    __main__   flags, start, end
    factory    the Flask application: guards, error answers, blueprints
    native     /api/*       \    gojson    bodies and answers the way Go reads and writes them
    chat       /api/chat ... >    relay     one request to a runner, ended when its client leaves
    openai_api /v1/*        /     scheduler which models are loaded, and until when
    store      manifests and blobs on disk         child -> runner  one llama.cpp process per model
    pulls, registry, create, seed   the ways by which a model gets into the store
    gguf, details                   what a model file and its manifest say about it
"""

VERSION = "0.33.0-engine"
