"""Downloads of models from a registry; all clients that pull the same model share one download.

:class:`~app.engine.pulls.pulls.Pulls` runs them; a download is cancelled when its last client disconnects.
"""
