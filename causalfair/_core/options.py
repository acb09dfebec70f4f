"""Package-wide options: progress, workers, inner threads."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from causalfair.exceptions import ParameterError

__all__ = ["get_option", "option_context", "set_options"]

_DEFAULTS = MappingProxyType({"progress": False, "n_jobs": None, "inner_threads": 1})
# What set_options changed holds in the whole process, so in every thread and notebook cell; what
# option_context changed holds where the block runs.
_process_wide: dict[str, Any] = {}
_block: ContextVar[MappingProxyType[str, Any] | None] = ContextVar(
    "causalfair_options", default=None
)
_NOTHING: MappingProxyType[str, Any] = MappingProxyType({})


def _check(name: str, value: Any) -> None:
    if name not in _DEFAULTS:
        near = difflib.get_close_matches(name, _DEFAULTS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ParameterError(f"no option {name!r}.{hint} Options: {', '.join(_DEFAULTS)}.")
    if name == "progress" and not isinstance(value, bool):
        raise ParameterError(f"option progress={value!r} must be True or False.")
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name == "inner_threads" and not (whole and value >= 1):
        raise ParameterError(f"option inner_threads={value!r} must be an integer of at least 1.")
    if name == "n_jobs" and not (value is None or (whole and value != 0)):
        raise ParameterError(f"option n_jobs={value!r} must be None or a non-zero integer.")


def set_options(**options: Any) -> None:
    """Set package-wide options.

    Parameters
    ----------
    **options
        ``progress`` (bool, default False): show progress of long work on standard error.
        ``n_jobs`` (int or None, default None): workers where an estimator's own ``n_jobs`` is None.
        ``inner_threads`` (int, default 1): BLAS and OpenMP threads inside one task.

    Raises
    ------
    ParameterError
        The option does not exist or the value has no meaning.

    See Also
    --------
    option_context : The same for the length of a ``with`` block.

    Examples
    --------
    >>> import causalfair as cf
    >>> cf.set_options(progress=False)
    >>> cf.get_option("progress")
    False
    """
    for name, value in options.items():
        _check(name, value)
    block = _block.get()
    if block is None:
        _process_wide.update(options)
    else:  # inside a block of option_context: until it ends
        _block.set(MappingProxyType({**block, **options}))


def get_option(name: str) -> Any:
    """Value of one package-wide option.

    Parameters
    ----------
    name : str
        Name of the option; see :func:`set_options`.

    Returns
    -------
    object
        Its value.

    Raises
    ------
    ParameterError
        The option does not exist.

    Examples
    --------
    >>> import causalfair as cf
    >>> cf.get_option("inner_threads")
    1
    """
    _check(name, _DEFAULTS.get(name))
    return {**_DEFAULTS, **_process_wide, **(_block.get() or _NOTHING)}[name]


@contextmanager
def option_context(**options: Any) -> Iterator[None]:
    """Set options inside a ``with`` block only.

    Parameters
    ----------
    **options
        As for :func:`set_options`.

    Yields
    ------
    None
        Nothing; the options hold until the block ends.

    Raises
    ------
    ParameterError
        The option does not exist or the value has no meaning.

    Examples
    --------
    >>> import causalfair as cf
    >>> with cf.option_context(n_jobs=2):
    ...     cf.get_option("n_jobs")
    2
    """
    for name, value in options.items():
        _check(name, value)
    token = _block.set(MappingProxyType({**(_block.get() or _NOTHING), **options}))
    try:
        yield
    finally:
        _block.reset(token)
