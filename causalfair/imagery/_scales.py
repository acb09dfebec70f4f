"""Several image sizes at once, and the search for the sizes that show heterogeneity best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from causalfair._core.crossfit import make_folds
from causalfair._core.random import child_seed, int_seed, root_seed
from causalfair._core.typing import FloatArray, IntArray
from causalfair.exceptions import DataError, ParameterError
from causalfair.imagery._compare import (
    CachedFeatures,
    RepresentationComparison,
    compare_representations,
)
from causalfair.imagery._design import take_role
from causalfair.imagery._estimator import ImageSequenceCATE
from causalfair.imagery._features import SequenceFeatures
from causalfair.imagery._ranking import METRICS
from causalfair.imagery._sequence import ImageSequence, as_sequence

__all__ = ["MultiScaleFeatures", "ScaleSearch", "scale_search"]

OWNER = "scale_search"


class MultiScaleFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Features of the same centre at several image sizes, side by side.

    A small image shows the household, a large one its surroundings. In
    :class:`ImageSequenceCATE` each size gets principal components of its own.

    Parameters
    ----------
    sizes : sequence of int
        Heights and widths in pixels, around the centre.
    representation : SequenceFeatures, optional
        What is made of each size; :class:`SequenceFeatures` when None.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the representations where they have none of their own; all sizes share it.

    Attributes
    ----------
    parts_ : dict of int to SequenceFeatures
        The fitted representation of each size.
    block_of_feature_ : ndarray of shape (D,)
        Size of each feature, such as ``"32px"``.

    References
    ----------
    .. [1] F. Zhu, C. T. Jerzak and A. Daoud (2025). Optimizing multi-scale representations to
       detect effect heterogeneity using Earth observation and computer vision. PMLR 275, 894-919,
       section 3. arXiv:2411.02134

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.imagery import MultiScaleFeatures, SequenceFeatures, SpectralFeatures
    >>> images = np.random.default_rng(0).random((6, 3, 8, 8, 2), dtype=np.float32)
    >>> features = MultiScaleFeatures((4, 8), SequenceFeatures(SpectralFeatures()))
    >>> features.fit_transform(images).shape
    (6, 48)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, sizes: Any, representation: Any = None, *, random_state: Any = None) -> None:
        self.sizes = sizes
        self.representation = representation
        self.random_state = random_state

    def fit(self, images: Any, y: Any = None) -> MultiScaleFeatures:
        """Fit the representation of each size.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C)
            Images.
        y : None
            Ignored.

        Returns
        -------
        MultiScaleFeatures
            The fitted representation.
        """
        self.fit_transform(images, y)
        return self

    def fit_transform(self, images: Any, y: Any = None, **fit_params: Any) -> FloatArray:
        """Fit and transform, reading the images once a size.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C)
            Images.
        y : None
            Ignored.
        **fit_params
            Ignored.

        Returns
        -------
        ndarray of shape (n_rows, D)
            Features of all sizes.

        Raises
        ------
        ParameterError
            Sizes that are not distinct whole numbers, or larger than the images.
        """
        del y, fit_params
        sequence = as_sequence(images, owner="MultiScaleFeatures.fit")
        sizes = _sizes(self.sizes, sequence, "MultiScaleFeatures.fit", least=1)
        seed = int_seed(root_seed(self.random_state), 0)
        parts = {s: _at_size(self.representation, s, seed) for s in sizes}
        values = [part.fit_transform(sequence) for part in parts.values()]
        self._join(parts, [v.shape[1] for v in values])
        return np.hstack(values)

    def _join(self, parts: dict[int, Any], widths: list[int]) -> None:
        self.parts_ = parts
        self.block_of_feature_ = np.repeat([f"{s}px" for s in parts], widths)
        self.seen_share_ = next(iter(parts.values())).seen_share_

    def transform(self, images: Any) -> FloatArray:
        """Features of each place at all sizes.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C)
            Images with the bands and scaling of ``fit``, at least as large as the largest size.

        Returns
        -------
        ndarray of shape (n_rows, D)
            One row an image.
        """
        check_is_fitted(self, "parts_")
        sequence = as_sequence(images, owner="MultiScaleFeatures.transform")
        return np.hstack([part.transform(sequence) for part in self.parts_.values()])

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Names of the features.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        ndarray of str
            The names of each size after ``"<size>px/"``.
        """
        del input_features
        check_is_fitted(self, "parts_")
        return np.asarray(
            [f"{s}px/{name}" for s, p in self.parts_.items() for name in p.get_feature_names_out()],
            dtype=object,
        )


def _sizes(sizes: Any, sequence: ImageSequence, owner: str, *, least: int) -> list[int]:
    values: list[Any] = list(np.atleast_1d(np.asarray(sizes, dtype=object)))
    whole = all(
        isinstance(s, int | np.integer) and not isinstance(s, bool) and s >= 1 for s in values
    )
    largest = min(sequence.shape[2:4])
    if not whole or len(set(values)) < max(len(values), least) or max(values) > largest:
        raise ParameterError(
            f"{owner} got sizes={sizes!r}; give {least} or more distinct whole numbers of pixels, "
            f"up to the images' {largest}."
        )
    return [int(s) for s in values]


def _at_size(representation: Any, size: int, seed: int) -> SequenceFeatures:
    fresh = SequenceFeatures() if representation is None else clone(representation)
    if not isinstance(fresh, SequenceFeatures):
        raise DataError(
            f"MultiScaleFeatures got representation of type {type(fresh).__name__}, which has no "
            "crop; use SequenceFeatures."
        )
    fresh.set_params(crop=size)
    if fresh.random_state is None:
        fresh.set_params(random_state=seed)
    return fresh


@dataclass(frozen=True)
class ScaleSearch:
    """Which image sizes show heterogeneity best.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a size or pair: ``sizes, estimate, std_error, ratio, p_value, p_adjusted``.
    selected : tuple of int
        The row with the largest ratio.
    gain_ : Estimates
        RATE of the best pair less that of the best single size, on the same units.
    confirmation_ : RankingEvaluation or None
        The selected sizes on units that did not choose them; None where all units chose.
    metric : str
        ``"autoc"`` or ``"qini"``.
    comparison_ : RepresentationComparison
        The comparison behind the table.
    """

    table: Any
    selected: tuple[int, ...]
    gain_: Any
    confirmation_: Any
    metric: str
    comparison_: RepresentationComparison

    def to_frame(self) -> Any:
        """One row a size or pair.

        Returns
        -------
        pandas.DataFrame
            A copy of ``table``.
        """
        return self.table.copy()

    def summary(self) -> Any:
        """Printable table, the selected sizes, and what other units say of them.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text.
        """
        from causalfair.reporting import Summary, Table
        from causalfair.reporting.format import format_estimate, format_p

        rows = []
        for row in self.table.itertuples():
            cells = format_estimate(row.estimate, row.std_error)
            rows.append([_label(row.sizes), cells.estimate, cells.std_error, f"{row.ratio:.2f}",
                         format_p(row.p_adjusted)])  # fmt: skip
        columns = ["pixels", self.metric.upper(), "std. error", "ratio", "adj. p"]
        notes = [f"Selected: {_label(self.selected)}, the largest of {len(rows)} ratios."]
        if self.confirmation_ is None:
            notes.append("All units chose: report the ratio as selected, with the adjusted p.")
        else:
            ratio = self.confirmation_.ratio[self.metric]
            p = format_p(self.confirmation_.p_values()[self.metric])
            notes.append(
                f"On the other half of the units, which did not choose: ratio {ratio:.2f}, p {p}."
            )
        if self.gain_ is not None:
            gain = format_estimate(self.gain_.estimate[0], self.gain_.std_error[0])
            notes.append(
                f"Best pair less best single size: {gain.estimate} (std. error {gain.std_error}; "
                "both were selected)."
            )
        return Summary(
            "Which image sizes show heterogeneity", [("cells", f"{len(rows)}")],
            [Table(columns, rows, None, "lrrrr")], notes,
        )  # fmt: skip

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())

    def plot(self, *, ax: Any = None) -> Any:
        """Draw the ratios: single sizes on the diagonal, pairs below it.

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

        sizes = sorted({s for row in self.table["sizes"] for s in row})
        ratio = np.full((len(sizes), len(sizes)), np.nan)
        for row in self.table.itertuples():
            at = sorted(sizes.index(s) for s in row.sizes)
            ratio[at[-1], at[0]] = row.ratio
        ax = new_axes(ax, width=1.6 + 0.8 * len(sizes), height=1.1 + 0.75 * len(sizes))
        picture = ax.imshow(ratio, cmap="viridis")
        middle = (np.nanmin(ratio) + np.nanmax(ratio)) / 2
        chosen = sorted(sizes.index(s) for s in self.selected)
        for i, j in zip(*np.nonzero(np.isfinite(ratio)), strict=True):
            star = "*" if (j, i) == (chosen[0], chosen[-1]) else ""
            colour = "white" if ratio[i, j] < middle else "black"
            ax.text(j, i, f"{ratio[i, j]:.1f}{star}", ha="center", va="center", color=colour)
        ax.set_xticks(range(len(sizes)), sizes)
        ax.set_yticks(range(len(sizes)), sizes)
        ax.set_xlabel("pixels")
        ax.set_ylabel("pixels")
        ax.spines[["top", "right", "left", "bottom"]].set_visible(False)
        ax.tick_params(length=0)
        ax.figure.colorbar(picture, ax=ax, label="RATE over its standard error", shrink=0.8)
        return ax


def _label(sizes: Any) -> str:
    return " + ".join(str(s) for s in sizes)


def scale_search(
    images: Any,
    y: Any,
    *,
    treatment: Any,
    sizes: Any,
    pairs: bool = True,
    representation: Any = None,
    learner: Any = None,
    metric: str = "qini",
    confirm: bool = True,
    scheme: str = "sequential",
    n_folds: int = 5,
    n_bootstrap: int = 200,
    random_state: Any = None,
    **roles: Any,
) -> ScaleSearch:
    """Compare image sizes, and pairs of them, by how well they rank units by effect.

    Parameters
    ----------
    images : ImageSequence or array of shape (n, T, H, W, C)
        Images as large as the largest size.
    y : array of shape (n_units,)
        Outcome.
    treatment : array of shape (n_units,)
        Binary treatment.
    sizes : sequence of int
        Heights and widths in pixels.
    pairs : bool, default True
        Try all pairs of sizes too.
    representation : SequenceFeatures, optional
        What is made of each size.
    learner : effect model, optional
        As for :class:`ImageSequenceCATE`.
    metric : {"qini", "autoc"}, default "qini"
        What to compare by.
    confirm : bool, default True
        Choose on one half of the units (clusters) and evaluate the choice on the other. Otherwise
        all units choose and the result is marked as selected.
    scheme : {"sequential", "split", "oob"}, default "sequential"
        As for :class:`ImageSequenceCATE`.
    n_folds : int, default 5
        Folds of the sequential scheme.
    n_bootstrap : int, default 200
        Half-samples.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.
    **roles
        ``cluster``, ``sample_weight``, ``propensity``, ``strata``, ``individual`` as for
        :meth:`ImageSequenceCATE.fit`.

    Returns
    -------
    ScaleSearch
        Table, selected sizes, gain of pairs, confirmation, and a heat map.

    Raises
    ------
    ParameterError
        Fewer than two sizes, sizes larger than the images, an unknown metric.
    DataError
        A role given by the name of a column.

    Notes
    -----
    Features of each size are made once. The largest of many ratios is too large: the half that did
    not choose is the evidence, at the price of half the sample.

    References
    ----------
    .. [1] F. Zhu, C. T. Jerzak and A. Daoud (2025). Optimizing multi-scale representations to
       detect effect heterogeneity using Earth observation and computer vision. PMLR 275, 894-919,
       section 3. arXiv:2411.02134

    Examples
    --------
    >>> from causalfair.datasets import make_image_sequence_trial
    >>> from causalfair.forest import CausalForest
    >>> from causalfair.imagery import SequenceFeatures, SpectralFeatures, scale_search
    >>> frame, truth = make_image_sequence_trial(200, n_frames=3, size=16, random_state=0)
    >>> search = scale_search(
    ...     truth["images"], frame["y"], treatment=frame["treatment"], sizes=(8, 16),
    ...     representation=SequenceFeatures(SpectralFeatures()), learner=CausalForest(50),
    ...     n_folds=3, n_bootstrap=20, random_state=0)
    >>> [tuple(row) for row in search.table["sizes"]]
    [(8,), (16,), (8, 16)]
    """
    if metric not in METRICS:
        raise ParameterError(f"{OWNER}: metric={metric!r} is neither 'autoc' nor 'qini'.")
    sequence = as_sequence(images, owner=OWNER)
    chosen = _sizes(sizes, sequence, OWNER, least=2)
    given = {"y": y, "treatment": treatment, **roles}
    named = [name for name, value in given.items() if isinstance(value, str) and name in (
        "y", "treatment", "cluster", "sample_weight", "strata")]  # fmt: skip
    if named or "X" in roles:
        raise DataError(
            f"{OWNER} takes arrays, and images only: {', '.join(named) or 'X'} is named or "
            "tabular. Compare sources by compare_representations."
        )
    root = root_seed(random_state)
    ready = _representations(sequence, chosen, pairs, representation, int_seed(root, 0))
    choosing, other = _halves(sequence, roles.get("cluster"), confirm, child_seed(root, 1))
    options: dict[str, Any] = {
        "scheme": scheme,
        "n_folds": n_folds,
        "random_state": int_seed(root, 2),
    }
    comparison = compare_representations(
        sequence.subset(choosing), **_rows(given, choosing),
        representations={_label(k): _of_rows(v, sequence, choosing) for k, v in ready.items()},
        learners={"learner": learner}, data_sources=("sequence",), metrics=(metric,),
        n_bootstrap=n_bootstrap, **options,
    )  # fmt: skip
    table = _table(comparison, ready)
    selected = ready_key(table)
    confirmation = None
    if confirm:
        model = ImageSequenceCATE(_of_rows(ready[selected], sequence, other), learner, **options)
        confirmation = model.fit(sequence.subset(other), **_rows(given, other)).evaluate(metric)
    joint = comparison.estimates_[metric]
    return ScaleSearch(table, selected, _gain(table, joint), confirmation, metric, comparison)


def ready_key(table: Any) -> tuple[int, ...]:
    """Sizes of the row with the largest ratio."""
    best: tuple[int, ...] = table["sizes"].iloc[int(table["ratio"].argmax())]
    return best


def _representations(
    sequence: ImageSequence, sizes: list[int], pairs: bool, representation: Any, seed: int
) -> dict[tuple[int, ...], CachedFeatures]:
    """Fitted representations of all sizes and pairs, whose features are made once a size."""
    single = {}
    for s in sizes:
        part = _at_size(representation, s, seed)
        single[s] = CachedFeatures(part, part.fit_transform(sequence))
    out: dict[tuple[int, ...], CachedFeatures] = {(s,): ready for s, ready in single.items()}
    for both in combinations(sizes, 2) if pairs else ():
        parts = [single[s] for s in both]
        joined = MultiScaleFeatures(both, representation)
        joined._join(
            {s: single[s].representation for s in both}, [p.features.shape[1] for p in parts]
        )
        out[both] = CachedFeatures(joined, np.hstack([p.features for p in parts]))
    return out


def _of_rows(ready: CachedFeatures, sequence: ImageSequence, units: IntArray) -> CachedFeatures:
    """The same with the features of the places of some units, in the order of ``subset``."""
    rows = np.unique(sequence.row_of_unit[units])
    if sequence.baseline is None:
        rows = np.unique(sequence.image_of_unit[units])
    part = CachedFeatures(ready.representation, ready.features[rows])
    if ready.seen_share_ is not None:
        part.seen_share_ = ready.seen_share_[rows]
    return part


def _halves(
    sequence: ImageSequence, cluster: Any, confirm: bool, seed: Any
) -> tuple[IntArray, IntArray]:
    n = sequence.n_units
    if not confirm:
        return np.arange(n), np.arange(0)
    groups = sequence.image_of_unit
    if cluster is not None:
        groups = np.unique(np.asarray(cluster), return_inverse=True)[1].ravel()
        if groups.size != n:
            raise DataError(f"{OWNER}: cluster has {groups.size} labels for {n} units.")
    folds = make_folds(n, 2, seed=seed, stratify=None, groups=groups)
    return np.flatnonzero(folds == 0), np.flatnonzero(folds == 1)


def _rows(given: Mapping[str, Any], units: IntArray) -> dict[str, Any]:
    """Roles of some units."""
    return {name: take_role(value, units) for name, value in given.items()}


def _table(comparison: RepresentationComparison, ready: Mapping[tuple[int, ...], Any]) -> Any:
    table = comparison.table
    keep = ["estimate", "std_error", "ratio", "p_value", "p_adjusted"]
    out = table[keep].copy()
    out.insert(0, "sizes", list(ready))
    return out.reset_index(drop=True)


def _gain(table: Any, joint: Any) -> Any:
    """Best pair less best single size; None without pairs."""
    count = table["sizes"].map(len).to_numpy()
    if (count == 1).all():
        return None
    pair, single = (
        int(np.flatnonzero(count == k)[table["ratio"].to_numpy()[count == k].argmax()])
        for k in (2, 1)
    )
    return joint.contrast(
        {joint.names[pair]: 1.0, joint.names[single]: -1.0}, name="best pair - best size"
    )
