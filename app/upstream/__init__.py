"""The bytes, connections and failures of the servers that answer our requests.

Nothing here knows a provider or a model. :mod:`session` and :mod:`transport` send requests for the libraries
requests and openai, :mod:`reading` reads their answers, :mod:`failures` turns failures into our errors.
"""
