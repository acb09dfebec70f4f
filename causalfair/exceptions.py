"""Errors and warnings raised on purpose by causalfair.

Every deliberate error derives from :class:`CausalFairError` and from the built-in class a caller
would expect (``ValueError``, ``ImportError``, ...), so both ways of catching it work.
"""

from __future__ import annotations

__all__ = [
    "BudgetExhaustedError",
    "CausalFairError",
    "CausalFairWarning",
    "CitationError",
    "ConvergenceError",
    "ConvergenceWarning",
    "DataError",
    "HoldoutChangedError",
    "IdentificationError",
    "LedgerConflictError",
    "LedgerError",
    "MissingDependencyError",
    "OverlapWarning",
    "ParameterError",
    "RoleError",
    "SmallSampleWarning",
    "UncertifiedWarning",
    "UnidentifiedFeatureWarning",
    "VacuousGuaranteeError",
    "WeakIdentificationWarning",
]


class CausalFairError(Exception):
    """Base class of all deliberate errors."""


class DataError(CausalFairError, ValueError):
    """The data cannot be used as given."""


class RoleError(DataError):
    """A column role is missing, duplicated or names an unknown column."""


class ParameterError(CausalFairError, ValueError):
    """A parameter, or a combination of parameters, has no meaning."""


class IdentificationError(CausalFairError, ValueError):
    """The data cannot identify the quantity asked for."""


class ConvergenceError(CausalFairError, RuntimeError):
    """A solver gave up before it reached its tolerance."""


class BudgetExhaustedError(CausalFairError, RuntimeError):
    """The budget of a reusable holdout is spent."""


class LedgerError(CausalFairError, OSError):
    """A ledger is locked, tampered with or unreadable."""


class HoldoutChangedError(LedgerError):
    """The holdout data are not the ones the ledger was created for."""


class LedgerConflictError(LedgerError):
    """Another ledger already spends the budget of the same holdout."""


class VacuousGuaranteeError(ParameterError):
    """The parameters leave an interval that covers everything, so nothing could be said."""


class CitationError(CausalFairError, KeyError):
    """A citation key is not among the references that come with the package."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument; a sentence should read as one.
        return str(self.args[0]) if self.args else ""


class MissingDependencyError(CausalFairError, ImportError):
    """An optional dependency is absent; the message says which extra to install."""


class CausalFairWarning(UserWarning):
    """Base class of all deliberate warnings."""


class OverlapWarning(CausalFairWarning):
    """Estimated probabilities come close to zero or one."""


class WeakIdentificationWarning(CausalFairWarning):
    """The data say little about the estimand; prefer the robust set where there is one."""


class UnidentifiedFeatureWarning(WeakIdentificationWarning):
    """A feature of the text is a function of the confounders, so its effect is not identified."""


class ConvergenceWarning(CausalFairWarning):
    """An iteration or a sampler did not meet its convergence criterion."""


class SmallSampleWarning(CausalFairWarning):
    """Too few rows or clusters for the large-sample approximation in use."""


class UncertifiedWarning(CausalFairWarning):
    """Answers come without a proof: the mechanism, or how it was set up, does not allow one."""
