"""The base of every estimator that reports effects."""

from __future__ import annotations

from typing import Any, ClassVar

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from causalfair._core.roles import RoleData
from causalfair._core.typing import FloatArray

__all__ = ["CausalEstimator"]


class CausalEstimator(BaseEstimator):
    """Base class: the constructor stores, ``fit`` sets ``estimates_``, everything else is derived.

    A subclass declares what it estimates and rests on, decorates ``fit`` with ``fit_context``, sets
    ``estimates_`` and ends with ``return self._finish(data, seed=root)``.
    """

    _title: ClassVar[str] = "Estimates"
    _estimand: ClassVar[str] = ""
    _assumptions: ClassVar[tuple[str, ...]] = ()
    _citations: ClassVar[tuple[str, ...]] = ()
    _parameter_constraints: ClassVar[dict[str, Any]] = {}

    estimates_: Any
    _record: dict[str, Any]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def _finish(self, data: RoleData, *, seed: Any = None, folds: str | None = None) -> Any:
        """Store what describes the fit; no training data."""
        self.n_obs_ = data.n
        self.feature_names_in_ = _object_array(data.covariate_names)
        self.n_features_in_ = len(data.covariate_names)
        self._backend = data.backend
        self._encoder = data.encoder
        self._record = {
            "seed": None if seed is None else seed.entropy,
            "spawn_key": () if seed is None else tuple(seed.spawn_key),
            "fingerprint": data.fingerprint(),
            "n": data.n,
            "roles": dict(data.names),
            "n_clusters": None if data.cluster is None else (data.cluster.max(axis=0) + 1).tolist(),
            "weighted": data.sample_weight is not None,
            "folds": folds,
        }
        return self

    # Derived from estimates_ ------------------------------------------------------------------

    def conf_int(self, level: float = 0.95, *, simultaneous: bool = False) -> FloatArray:
        """Confidence intervals of the terms.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.
        simultaneous : bool, default False
            Cover all terms at once.

        Returns
        -------
        numpy.ndarray of shape (k, 2)
            Lower and upper ends, in the order of ``estimates_.names``.
        """
        check_is_fitted(self)
        interval: FloatArray = self.estimates_.conf_int(level, simultaneous=simultaneous)
        return interval

    def to_frame(self, level: float = 0.95, *, native: str | None = None) -> Any:
        """Tidy table, one row a term, in the library of the table ``fit`` was given.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.
        native : {"pandas", "polars"}, optional
            Library of the result.

        Returns
        -------
        pandas.DataFrame or polars.DataFrame
            Columns ``term, estimate, std_error, statistic, p_value, conf_low, conf_high``.
        """
        check_is_fitted(self)
        return self.estimates_.to_frame(level, native=native or self._backend)

    def summary(self, level: float = 0.95) -> Any:
        """What a referee asks for, as text, HTML, LaTeX or Markdown.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text; ``to_latex()``, ``to_markdown()``, ``to_frame()``.
        """
        check_is_fitted(self)
        from causalfair.reporting import Summary, estimates_table

        tables = [estimates_table(self.estimates_, level), *self._summary_tables()]
        notes = [
            *([f"Estimand: {self._estimand}"] if self._estimand else []),
            *([f"Assumes: {'; '.join(self._assumptions)}."] if self._assumptions else []),
            *self._summary_notes(),
            *(f"Warning: {message}" for message in self._record["warnings"]),
            "Cite: .cite()   Reproduce: .provenance()",
        ]
        return Summary(self._title, self._summary_header(), tables, notes)

    def _summary_header(self) -> list[tuple[str, str]]:
        """Pairs shown above the table; families add to them."""
        names = self._record["roles"]
        pairs = [("outcome" if role == "y" else role, str(name)) for role, name in names.items()]
        pairs.append(("n", f"{self.n_obs_:,}"))
        clusters = self._record["n_clusters"]
        if clusters is not None:
            pairs.append(("clusters", " x ".join(f"{count:,}" for count in clusters)))
        if self._record["weighted"]:
            pairs.append(("weights", "sampling weights"))
        return pairs

    def _summary_tables(self) -> list[Any]:
        """Further tables of the summary."""
        return []

    def _summary_notes(self) -> list[str]:
        """Further notes of the summary."""
        return []

    def plot(self, *, ax: Any = None, level: float = 0.95) -> Any:
        """Forest plot of the terms.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; new axes when None.
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        check_is_fitted(self)
        return self.estimates_.plot(ax=ax, level=level)

    def cite(self) -> Any:
        """References of the method, of the options used and of the software.

        Returns
        -------
        causalfair.reporting.Citations
            Prints as text; ``bibtex()`` gives BibTeX.
        """
        from causalfair.reporting import Citations

        keys = [*self._citations, *self._cite_extra(), "causalfair"]
        return Citations(tuple(dict.fromkeys(keys)))

    def _cite_extra(self) -> tuple[str, ...]:
        """Keys of the options in use."""
        return ()

    def provenance(self) -> Any:
        """Versions, parameters, seed and data fingerprint of this fit.

        Returns
        -------
        causalfair.reporting.Provenance
            ``to_json()`` writes it, ``check()`` verifies it.
        """
        check_is_fitted(self)
        from causalfair.reporting import Provenance

        return Provenance.of(self, self._record)

    # Attributes that the regression tables of maketables read -----------------------------------

    @property
    def __maketables_coef_table__(self) -> Any:
        check_is_fitted(self)
        return self.estimates_.__maketables_coef_table__

    def __maketables_stat__(self, key: str) -> Any:
        return self.n_obs_ if key == "N" else None

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        return ["N"]

    @property
    def __maketables_depvar__(self) -> str:
        return str(self._record["roles"].get("y", "outcome"))

    @property
    def __maketables_vcov_info__(self) -> Any:
        return self.estimates_.__maketables_vcov_info__

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimates_")

    def _repr_html_(self) -> str:
        if self.__sklearn_is_fitted__():
            return str(self.summary()._repr_html_())
        from sklearn.utils import estimator_html_repr

        return str(estimator_html_repr(self))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}


def _object_array(names: tuple[str, ...]) -> Any:
    import numpy as np

    return np.array(names, dtype=object)
