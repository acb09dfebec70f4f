"""Every branch on a dependency's version, and every use of its semi-private parts."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sklearn.base import _fit_context
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions

from causalfair._core.logging import recorded_warnings

__all__ = [
    "HasMethods",
    "Interval",
    "Options",
    "StrOptions",
    "draws_object",
    "fit_context",
    "interval_of_draws",
    "logistic_cv",
    "posterior_dataset",
]

F = TypeVar("F", bound=Callable[..., Any])


def fit_context(fit: F) -> F:
    """Check parameter constraints, time the fit and collect its deliberate warnings."""
    checked = _fit_context(prefer_skip_nested_validation=True)(fit)

    @functools.wraps(fit)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        messages: list[str] = []
        token = recorded_warnings.set(messages)
        start = time.perf_counter()
        try:
            fitted = checked(self, *args, **kwargs)
        finally:
            recorded_warnings.reset(token)
        self._record = {
            **getattr(self, "_record", {}),
            "warnings": list(messages),
            "seconds": time.perf_counter() - start,
        }
        return fitted

    return run  # type: ignore[return-value]


def logistic_cv() -> Any:
    """Logistic regression with a cross-validated ridge penalty."""
    from sklearn.linear_model import LogisticRegressionCV

    known = inspect.signature(LogisticRegressionCV).parameters
    options: dict[str, Any] = {"Cs": 8, "cv": 5, "scoring": "neg_log_loss", "max_iter": 1000}
    if "use_legacy_attributes" in known:  # scikit-learn 1.8 on
        options |= {"use_legacy_attributes": False, "l1_ratios": (0.0,)}
    return LogisticRegressionCV(**options)


def posterior_dataset(posterior: Any) -> Any:
    """Posterior of an ArviZ object as an xarray Dataset (InferenceData and DataTree alike)."""
    group = posterior["posterior"]
    return group.to_dataset() if hasattr(group, "to_dataset") else group


def draws_object(groups: dict[str, dict[str, Any]], *, coords: Any, dims: Any) -> Any:
    """ArviZ object of groups of draws: InferenceData before ArviZ 1.0, DataTree after.

    Empty groups are left out.
    """
    import arviz

    az: Any = arviz
    groups = {name: values for name, values in groups.items() if values}
    if hasattr(az, "InferenceData"):
        return az.from_dict(**groups, coords=coords, dims=dims)
    return az.from_dict(groups, coords=coords, dims=dims)


def interval_of_draws(draws: Any, level: float) -> Any:
    """Equal-tailed interval (k, 2) of draws (B, k); never ArviZ's default."""
    from causalfair.inference import DrawEstimates

    names = [str(j) for j in range(draws.shape[1])]
    return DrawEstimates(draws, names).conf_int(level)
