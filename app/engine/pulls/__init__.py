"""Downloads of models from a registry, each shared by the clients that ask for it.

:class:`~app.engine.pulls.pulls.Pulls` runs them; a download ends when its last client leaves.
"""
