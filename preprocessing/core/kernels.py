"""Compiled kernels, kept on disk between runs where there is a place to keep them.

Numba keeps what it compiled beside the source, in ``NUMBA_CACHE_DIR`` or in the user's cache
folder. In a container or on a cluster none of these need be writable, a quota may be used up, and a
crash may leave damaged files there: a kernel is then compiled anew, once a process.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache


class ForgivingCache(FunctionCache):
    """Cache on disk whose faults cost the time to compile, nothing else."""

    def load_overload(self, *arguments: Any) -> Any:
        """Return what was compiled; None if it is not there, or not readable."""
        try:
            return super().load_overload(*arguments)
        except Exception:  # unpickling a damaged index raises many kinds
            return None

    def save_overload(self, *arguments: Any) -> None:
        """Keep what was compiled, if there is a place."""
        with contextlib.suppress(Exception):  # it reads the index as well
            super().save_overload(*arguments)


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function with Numba when it is first called, and keep the result on disk.

    Args:
        options: of ``numba.njit``, such as ``nogil=True``.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        with contextlib.suppress(RuntimeError):  # no place is writable
            dispatcher._cache = ForgivingCache(function)
        return dispatcher

    return decorate


def cache_folder(kernel: Any) -> str | None:
    """Return the folder that a compiled kernel is kept in; None if no place is writable."""
    cache = kernel._cache
    return str(cache.cache_path) if isinstance(cache, ForgivingCache) else None
