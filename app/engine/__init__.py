r"""The embedded engine: a small Ollama-compatible server for machines without Ollama.

A program of its own (``python -m app.engine``). Nothing else of ``app`` imports it, and of ``app`` it imports
only modules at the bottom, such as the grammar of model names. Its rooms import only what is below them::

    __main__   flags, start, end
    factory    the Flask application: guards, error answers, blueprints
    routes/    /api/* in native, chat and embed, /v1/* in openai_api
    runners/   scheduler            which models are loaded, and until when
               relay                one request to a runner, ended when its client leaves
               child -> runner      one llama.cpp process per model
    pulls/     pulls -> registry    downloads that clients share; beside the runners
    models/    store                manifests and blobs on disk
               details              what they say about a model
               create, seed         models that are made here, and the one that comes with the engine
    gojson     bodies and answers the way Go reads and writes them
"""

VERSION = "0.33.0-engine"
