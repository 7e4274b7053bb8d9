r"""The embedded engine: a small Ollama-compatible server for machines without Ollama.

It is a program of its own (``python -m app.engine``). The backend does not import it; the engine imports only
``app.gguf``, ``app.manifest`` and ``app.model_name``. Its rooms import only from the rooms below them::

    __main__   flags, start, end
    serving    waitress: threads for each kind of request
    factory    the Flask application: checks of origin and host, error answers, blueprints
    routes/    /api/* in native, chat and embed, /v1/* in openai_api
    runners/   scheduler            which models are loaded, and until when
               relay                one request to a runner, stopped when its client disconnects
               child -> runner      one llama.cpp process per model
    pulls/     pulls -> registry    downloads that clients share; imports nothing of runners/
    models/    store                manifests and blobs on disk
               details              the description of a model
               create, seed         models created here, and the bundled model
    gojson     JSON as Go's encoding/json reads and writes it
"""

VERSION = "0.33.0-engine"
