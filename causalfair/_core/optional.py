"""Optional dependencies, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from causalfair.exceptions import MissingDependencyError

__all__ = ["import_optional"]


def import_optional(module: str, *, extra: str) -> Any:
    """Import ``module``, or say which extra of causalfair installs it.

    Parameters
    ----------
    module : str
        Dotted name of the module, such as ``"matplotlib.pyplot"``.
    extra : str
        Extra of causalfair that brings it.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    MissingDependencyError
        The module, or the package that holds it, is not installed. An import error from inside an
        installed package is passed on as it is.

    Examples
    --------
    >>> import_optional("math", extra="plot").sqrt(4.0)
    2.0
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name not in (package, module):
            raise
        raise MissingDependencyError(
            f"{package} is needed here and is not installed. "
            f'Install it with: pip install "causalfair[{extra}]"'
        ) from error
