"""The limit of open files, which limits the connections."""

from __future__ import annotations

import contextlib

_OTHER_FILES = 100  # the database, the log, libraries


def allow_files(connections: int, threads: int) -> int:
    """Raise the limit of open files as far as needed and possible; often it is 1024.

    :return: how many of *connections* the limit leaves room for
    """
    wanted = connections + threads + _OTHER_FILES  # a stream has a second connection, to the provider
    allowed = _raise_limit(wanted)
    return connections if allowed >= wanted else max(16, connections * allowed // wanted)


def _raise_limit(wanted: int) -> int:
    """Return how many files may be open; *wanted* if more are allowed."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    unlimited = {-1, resource.RLIM_INFINITY}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft not in unlimited and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (wanted if hard in unlimited else min(wanted, hard), hard)
            )
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft in unlimited else min(soft, wanted)
