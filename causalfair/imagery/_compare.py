"""Data x representation x learner x metric, on the same folds and the same scores."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from causalfair._core.logging import progress
from causalfair._core.random import child_seed, root_seed
from causalfair._core.typing import FloatArray
from causalfair.exceptions import DataError, ParameterError
from causalfair.imagery._design import SOURCES
from causalfair.imagery._estimator import ImageSequenceCATE
from causalfair.imagery._features import SequenceFeatures
from causalfair.imagery._fitted import first_cluster
from causalfair.imagery._ranking import METRICS, evaluate_priorities, ratios
from causalfair.imagery._sequence import as_sequence

__all__ = ["CachedFeatures", "RepresentationComparison", "compare_representations"]

SPACES: dict[str, Any] = {"pc": "auto", "raw": None}


@dataclass(frozen=True)
class RepresentationComparison:
    """A table of what was tried, all cells evaluated on the same units with the same scores.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a cell and metric: ``data_source, representation, learner, space, metric, estimate,
        std_error, ratio, p_value, difference, difference_std_error, p_adjusted, ate, r_squared,
        r_squared_std_error, calibration, n_features, seconds``. ``difference`` is from the
        reference cell (the first), ``r_squared`` the share of the R-loss explained beyond a
        constant effect, with the nuisances of the reference.
    estimates_ : dict of str to Estimates
        By metric, jointly over cells.
    scheme : str
        How ranking and evaluation were kept apart.
    """

    table: Any
    estimates_: dict[str, Any]
    scheme: str

    def to_frame(self) -> Any:
        """The table.

        Returns
        -------
        pandas.DataFrame
            A copy of ``table``.
        """
        return self.table.copy()

    def summary(self) -> Any:
        """Printable table of RATE ratios.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text.
        """
        from causalfair.reporting import Summary, Table
        from causalfair.reporting.format import format_p

        rows = []
        for row in self.table.itertuples():
            name = "-" if row.data_source == "tabular" else row.representation
            rows.append([row.data_source, name, row.learner, row.space, row.metric.upper(),
                         f"{row.estimate:.3g}", f"{row.ratio:.2f}",
                         format_p(row.p_adjusted)])  # fmt: skip
        columns = ["data", "features", "learner", "space", "metric", "RATE", "ratio", "adj. p"]
        return Summary(
            "Comparison of data, features and learners",
            [("cells", f"{len(self.table)}"), ("scheme", self.scheme)],
            [Table(columns, rows, None, "lllllrrr")],
            [
                "All cells share folds, scores and half-samples. Adjusted p-values are step-down "
                "over the cells of a metric: use them for claims about the best cell, and report "
                "that it was selected.",
            ],
        )

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())

    def factor_analysis(self, attributes: Any = None) -> Any:
        """Regress the RATE ratio on the factors of the grid.

        Parameters
        ----------
        attributes : mapping of str to mapping, optional
            What representations are, by name, in place of their names: numbers such as
            ``log_parameters`` or ``size``, or words such as ``pretrained``; every representation
            needs the same keys. Cells without images take the mean of numbers and ``"none"``.

        Returns
        -------
        pandas.DataFrame
            Columns ``term, estimate, std_error, statistic, p_value``. Cells share data and are not
            independent: read it as a description.

        Raises
        ------
        DataError
            Fewer cells than coefficients plus two, or attributes that do not fit the
            representations.
        """
        import pandas as pd
        import statsmodels.api as sm

        factors = self.table[["data_source", "representation", "learner", "space", "metric"]]
        if attributes is not None:
            told = _told(factors["representation"], attributes)
            factors = pd.concat([factors.drop(columns="representation"), told], axis=1)
        design = pd.get_dummies(factors, drop_first=True).astype(float)
        design = design.loc[:, design.std() > 0]
        keep: list[str] = []
        for name in design.columns:  # leave out what other factors already say
            tried = sm.add_constant(design[[*keep, name]])
            if np.linalg.matrix_rank(tried.to_numpy()) == tried.shape[1]:
                keep.append(name)
        if len(self.table) < len(keep) + 3:
            raise DataError(
                f"factor_analysis: {len(self.table)} cells for {len(keep) + 1} coefficients; "
                "compare more cells."
            )
        fit = sm.OLS(self.table["ratio"], sm.add_constant(design[keep])).fit(cov_type="HC3")
        return pd.DataFrame(
            {"term": fit.params.index, "estimate": fit.params.to_numpy(),
             "std_error": fit.bse.to_numpy(), "statistic": fit.tvalues.to_numpy(),
             "p_value": fit.pvalues.to_numpy()}
        )  # fmt: skip

    def plot(self, *, ax: Any = None) -> Any:
        """RATE ratios by cell, one mark a metric.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from causalfair.reporting.plot import new_axes

        labels = list(dict.fromkeys(self.table["cell"]))
        ax = new_axes(ax, height=0.8 + 0.42 * len(labels))
        for metric, marker in zip(METRICS, "os", strict=True):
            rows = self.table[self.table["metric"] == metric]
            ax.plot(
                rows["ratio"], [labels.index(c) for c in rows["cell"]], marker, label=metric.upper()
            )
        for value in (-1.96, 1.96):
            ax.axvline(value, color="0.75", linestyle=":", linewidth=1)
        ax.axvline(0.0, color="0.5", linewidth=0.8)
        ax.set_yticks(range(len(labels)), labels)
        ax.invert_yaxis()
        ax.set_xlabel("RATE over its standard error")
        ax.legend(frameon=False, loc="best")
        return ax

    def plot_spaces(self, *, metric: str = "qini", ax: Any = None) -> Any:
        """Ratios of raw features against those of principal components.

        Parameters
        ----------
        metric : {"qini", "autoc"}, default "qini"
            Which RATE.
        ax : matplotlib.axes.Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            Points below the diagonal gain from components. Lines show tabular cells, which have no
            space.

        Raises
        ------
        DataError
            The metric or one of the spaces was not compared.
        """
        from causalfair.reporting.plot import new_axes

        table = self.table[self.table["metric"] == metric]
        key = ["data_source", "representation", "learner"]
        wide = table[table["space"] != ""].pivot_table("ratio", key, "space", sort=False)
        if not {"pc", "raw"} <= set(wide.columns) or wide.empty:
            raise DataError(
                f"plot_spaces(metric={metric!r}) needs cells of both spaces: "
                "compare_representations(spaces=('pc', 'raw'))."
            )
        ax = new_axes(ax, width=6.2, height=4.4)
        alone = table.loc[table["data_source"] == "tabular", "ratio"]
        ends = np.concatenate([wide.to_numpy().ravel(), alone.to_numpy()])
        margin = 0.08 * (np.ptp(ends) or 1.0)
        low, high = ends.min() - margin, ends.max() + margin
        ax.plot([low, high], [low, high], color="0.55", linewidth=1.0, zorder=0)
        for j, value in enumerate(alone):
            label = "tabular only" if j == 0 else None
            ax.axhline(value, color="0.7", linestyle=":", linewidth=1, zorder=0, label=label)
            ax.axvline(value, color="0.7", linestyle=":", linewidth=1, zorder=0)
        for source, rows in wide.groupby(level="data_source", sort=False):
            ax.plot(rows["pc"], rows["raw"], "o", label=source)
        ax.set_xlim(low, high)
        ax.set_ylim(low, high)
        ax.set_aspect("equal")
        ax.set_xlabel(f"{metric.upper()} ratio, principal components")
        ax.set_ylabel(f"{metric.upper()} ratio, raw features")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return ax


def _told(names: Any, attributes: Any) -> Any:
    """Columns of what the representation of each cell is."""
    import pandas as pd

    table = pd.DataFrame.from_dict(
        {name: dict(value) for name, value in attributes.items()}, orient="index"
    )
    used = [name for name in dict.fromkeys(names) if name]
    missing = [name for name in used if name not in table.index]
    if missing or table.loc[used].isna().any(axis=None):
        raise DataError(
            "factor_analysis: attributes must say the same of every representation; "
            f"{missing or 'some values'} missing of {used}."
        )
    out = table.reindex(names).reset_index(drop=True)
    for column, values in table.loc[used].items():
        numeric = pd.api.types.is_numeric_dtype(values)
        out[column] = out[column].fillna(values.mean() if numeric else "none")
    return out


class CachedFeatures:
    """A fitted representation with its features, so that cells do not recompute them."""

    _is_cached = True

    def __init__(self, representation: Any, features: FloatArray) -> None:
        self.representation, self.features = representation, features
        self.seen_share_ = getattr(representation, "seen_share_", None)
        self.block_of_feature_ = getattr(representation, "block_of_feature_", None)

    def fit(self, images: Any) -> CachedFeatures:
        del images
        return self

    def fit_transform(self, images: Any) -> FloatArray:
        del images
        return self.features

    def transform(self, images: Any) -> FloatArray:
        out: FloatArray = self.representation.transform(images)
        return out

    def get_feature_names_out(self) -> Any:
        if hasattr(self.representation, "get_feature_names_out"):
            return self.representation.get_feature_names_out()
        return [f"image{j}" for j in range(self.features.shape[1])]


def compare_representations(
    images: Any,
    y: Any,
    *,
    treatment: Any,
    X: Any = None,
    covariates: Any = None,
    cluster: Any = None,
    sample_weight: Any = None,
    propensity: Any = None,
    strata: Any = None,
    individual: bool = False,
    representations: Mapping[str, Any] | None = None,
    learners: Mapping[str, Any] | None = None,
    data_sources: Any = None,
    spaces: Any = ("pc",),
    metrics: Any = METRICS,
    scheme: str = "sequential",
    n_folds: int = 5,
    n_bootstrap: int = 200,
    n_jobs: int | None = None,
    random_state: Any = None,
) -> RepresentationComparison:
    """Compare data sources, representations and learners by how well they rank units by effect.

    Parameters
    ----------
    images : ImageSequence or array of shape (n, T, H, W, C)
        Images.
    y : array of shape (n_units,) or str
        Outcome, or the name of its column in ``X``.
    treatment : array of shape (n_units,) or str
        Binary treatment.
    X : frame or array of shape (n_units, p), optional
        Tabular covariates.
    covariates : "all", list of str or formula, optional
        Which columns of ``X`` to use.
    cluster : array, str or list of str, optional
        As for :meth:`ImageSequenceCATE.fit`.
    sample_weight : array of shape (n_units,) or str, optional
        Sampling weights.
    propensity : float, array of shape (n_units,), "estimate" or None
        As for :meth:`ImageSequenceCATE.fit`.
    strata : array of shape (n_units,), optional
        Strata of the randomisation.
    individual : bool, default False
        As for :meth:`ImageSequenceCATE.fit`.
    representations : mapping of str to transformer, optional
        Default: ``{"random convolution": SequenceFeatures()}``.
    learners : mapping of str to effect model, optional
        Default: ``{"forest": CausalForest()}``.
    data_sources : sequence of str, optional
        Default: every source that the data allow, tabular first (the reference).
    spaces : sequence of {"pc", "raw"}, default ("pc",)
        Principal components, or standardised features.
    metrics : sequence of {"autoc", "qini"}
        What to compare by.
    scheme : {"sequential", "split", "oob"}, default "sequential"
        As for :class:`ImageSequenceCATE`.
    n_folds : int, default 5
        Folds of the sequential scheme.
    n_bootstrap : int, default 200
        Half-samples, shared by all cells.
    n_jobs : int, optional
        Threads; results do not depend on it.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed, of folds too: all cells share them.

    Returns
    -------
    RepresentationComparison
        Table, summary, plot and factor analysis.

    Raises
    ------
    ParameterError
        An unknown source, space or metric.

    Notes
    -----
    Scores come from the first cell for all cells, so that differences between cells are differences
    in ranking. In a trial they are valid whatever the features.

    References
    ----------
    .. [1] C. T. Jerzak, R. Vashistha and A. Daoud (2024). Effect heterogeneity with Earth
       observation in randomized controlled trials: exploring the role of data, model, and
       evaluation metric choice. arXiv:2407.11674

    Examples
    --------
    >>> from causalfair.datasets import make_image_sequence_trial
    >>> from causalfair.forest import CausalForest
    >>> from causalfair.imagery import SequenceFeatures, SpectralFeatures, compare_representations
    >>> frame, truth = make_image_sequence_trial(120, size=12, random_state=0)
    >>> table = compare_representations(
    ...     truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5,
    ...     representations={"spectral": SequenceFeatures(SpectralFeatures())},
    ...     learners={"forest": CausalForest(50)}, n_folds=3, n_bootstrap=20, random_state=1,
    ... ).to_frame()
    >>> list(table["data_source"].unique())
    ['image', 'sequence']
    """
    owner = "compare_representations"
    sequence = as_sequence(images, owner=owner)
    if representations is None:
        representations = {"random convolution": SequenceFeatures()}
    learners = {"forest": None} if learners is None else learners
    for label, value in (("representations", representations), ("learners", learners)):
        if not isinstance(value, Mapping) or not value:
            raise ParameterError(
                f"{owner} got {label} of type {type(value).__name__}; give names and objects, as "
                f'in {label}={{"name": ...}}.'
            )
    sources = _sources(data_sources, X, sequence.shape[1], owner)
    unknown = [s for s in spaces if s not in SPACES] + [m for m in metrics if m not in METRICS]
    if unknown:
        raise ParameterError(f"{owner} got {unknown[0]!r}; spaces are 'pc' and 'raw', metrics "
                             "'autoc' and 'qini'.")  # fmt: skip
    root = root_seed(random_state)
    roles = {"treatment": treatment, "X": X, "covariates": covariates, "cluster": cluster,
             "sample_weight": sample_weight, "propensity": propensity, "strata": strata,
             "individual": individual}  # fmt: skip
    cells = _cells(sources, representations, learners, spaces)
    cache: dict[tuple[str, bool], CachedFeatures] = {}
    fitted, rows = {}, []
    for label, source, name, learner, space in progress(cells, "comparison"):
        start = time.perf_counter()
        model = ImageSequenceCATE(
            None if source == "tabular" else _cached(
                cache, name, representations[name], sequence, "image" in source, root
            ),
            learners[learner], data_source=source, n_components=SPACES.get(space, "auto"),
            scheme=scheme, n_folds=n_folds, n_jobs=n_jobs, random_state=root,
        )  # fmt: skip
        used = {
            k: v for k, v in roles.items() if k not in ("X", "covariates") or "tabular" in source
        }
        fitted[label] = model.fit(sequence, y, **used)
        rows.append((label, source, name, learner, space, time.perf_counter() - start))
    return _tabulate(fitted, rows, metrics, scheme, n_bootstrap, child_seed(root, 99))


def _sources(data_sources: Any, X: Any, frames: int, owner: str) -> list[str]:
    if data_sources is None:
        image = ["image"] if frames == 1 else ["image", "sequence"]
        if X is None:
            return image
        return ["tabular", *image, *(f"tabular+{s}" for s in image)]
    chosen = [data_sources] if isinstance(data_sources, str) else list(data_sources)
    for source in chosen:
        if source not in SOURCES:
            raise ParameterError(
                f"{owner}: data_sources has {source!r}; it takes {', '.join(map(repr, SOURCES))}."
            )
    return chosen


def _cells(sources: Any, representations: Any, learners: Any, spaces: Any) -> list[Any]:
    cells = []
    for source, learner in product(sources, learners):
        if source == "tabular":
            cells.append((f"tabular, {learner}", source, "", learner, ""))
            continue
        for name, space in product(representations, spaces):
            cells.append((f"{source}, {name}, {learner}, {space}", source, name, learner, space))
    return cells


def _cached(
    cache: dict[tuple[str, bool], CachedFeatures], name: str, representation: Any, sequence: Any,
    latest: bool, root: Any,
) -> CachedFeatures:  # fmt: skip
    from causalfair.imagery._estimator import REPRESENT, _seeded

    if (name, latest) not in cache:
        fresh = _seeded(representation, root, REPRESENT, None)
        seen = sequence.latest() if latest else sequence
        cache[name, latest] = CachedFeatures(
            fresh, np.asarray(fresh.fit_transform(seen), dtype=float)
        )
    return cache[name, latest]


def _tabulate(
    fitted: dict[str, ImageSequenceCATE], rows: list[Any], metrics: Any, scheme: str,
    n_bootstrap: int, seed: np.random.SeedSequence,
) -> RepresentationComparison:  # fmt: skip
    import pandas as pd

    from causalfair.forest import effect_losses

    reference = next(iter(fitted.values()))
    sample = reference.effect_model_.sample_
    priorities = {label: model._priority for label, model in fitted.items()}
    explained = effect_losses(
        {label: np.asarray(model.predict()) for label, model in fitted.items()},
        reference.effect_model_,
    ).r_squared_
    out, estimates = [], {}
    for metric in metrics:
        joint, _ = evaluate_priorities(
            priorities, sample.scores, reference._folds, metric=metric, scheme=scheme,
            cluster=first_cluster(sample.cluster), sample_weight=sample.sample_weight, seed=seed,
            n_bootstrap=n_bootstrap,
        )  # fmt: skip
        k = len(fitted)
        levels = joint[list(joint.names[:k])] if k > 1 else joint
        estimates[metric] = joint
        ratio = ratios(levels)
        plain = np.where(levels.std_error == 0, 1.0, levels.p_value())
        adjusted = _adjusted(levels, plain)
        for j, (label, source, name, learner, space, seconds) in enumerate(rows):
            model = fitted[label]
            calibration = model.calibration_test().estimate
            difference = (0.0, 0.0) if j == 0 else (
                joint.estimate[k + j - 1], joint.std_error[k + j - 1]
            )  # fmt: skip
            out.append(
                {"cell": label, "data_source": source, "representation": name, "learner": learner,
                 "space": space, "metric": metric, "estimate": levels.estimate[j],
                 "std_error": levels.std_error[j], "ratio": ratio[j],
                 "p_value": plain[j], "p_adjusted": adjusted[j],
                 "difference": difference[0], "difference_std_error": difference[1],
                 "ate": float(model.estimates_.estimate[0]),
                 "r_squared": explained.estimate[j],
                 "r_squared_std_error": explained.std_error[j],
                 "calibration": float(calibration[1]) if len(calibration) > 1 else np.nan,
                 "n_features": len(model.effect_model_.feature_names_in_), "seconds": seconds}
            )  # fmt: skip
    return RepresentationComparison(pd.DataFrame(out), estimates, scheme)


def _adjusted(levels: Any, plain: FloatArray) -> FloatArray:
    """Step-down p-values over the cells in which anything was ranked."""
    adjusted = np.array(plain)
    ranked = np.flatnonzero(levels.std_error > 0)
    if ranked.size > 1:
        names = [levels.names[j] for j in ranked]
        adjusted[ranked] = np.asarray(levels[names].p_adjust("romano-wolf"))
    return adjusted
