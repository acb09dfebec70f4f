"""Conditional average treatment effects given image sequences."""

from __future__ import annotations

import warnings
from inspect import signature
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn.base import clone

from causalfair._core.compat import HasMethods, Interval, StrOptions, fit_context
from causalfair._core.crossfit import fold_hash, make_folds
from causalfair._core.learners import seeded
from causalfair._core.logging import progress
from causalfair._core.random import child_seed, int_seed, root_seed
from causalfair._core.roles import RoleData, resolve_roles
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import check_binary, check_numeric
from causalfair.exceptions import (
    DataError,
    IdentificationError,
    ParameterError,
    SmallSampleWarning,
)
from causalfair.imagery._compress import check_components
from causalfair.imagery._design import (
    Design,
    acquisition_check,
    assignment_probability,
    guard_clusters,
    refuse_copies,
    resolve_source,
    warn_if_wide,
)
from causalfair.imagery._features import SequenceFeatures
from causalfair.imagery._fitted import FittedEffects, feature_names
from causalfair.imagery._frames import FrameEncoder
from causalfair.imagery._sequence import ImageSequence, as_sequence
from causalfair.imagery._spatial import spatial_groups
from causalfair.imagery._support import Calendar, SupportReference
from causalfair.imagery._torch import TorchSequenceEncoder
from causalfair.imagery._units import Trial, as_clusters, drop_missing

__all__ = ["ImageSequenceCATE"]

OWNER = "ImageSequenceCATE.fit"
REPRESENT, LEARN, FOLDS, TRAIN, RATE = range(5)  # keys of the random streams


class ImageSequenceCATE(FittedEffects):
    """Effects of a treatment given what is visible from above, in a randomised trial.

    Images of each place before the treatment are turned into features, joined with tabular
    covariates if there are any, and handed to a learner of heterogeneous effects. The average
    effect, projections and the evaluation of the ranking rest on the randomisation, not on the
    features being right; a poor representation costs power only.

    Parameters
    ----------
    representation : transformer of image sequences, optional
        :class:`SequenceFeatures` (the default: random convolutional features, mean and trend), or
        anything with ``fit`` and ``transform(images) -> (n_images, D)``.
    learner : effect model, optional
        From :mod:`causalfair.forest`; :class:`~causalfair.forest.CausalForest` when None. With
        fewer than about 100 places prefer ``RLearner`` or ``DRLearner`` with a ridge.
    data_source : str, default "auto"
        ``"tabular"``, ``"image"`` (the latest frame only), ``"sequence"``, ``"tabular+image"``,
        ``"tabular+sequence"``; ``"auto"`` uses all that is given.
    n_components : int, "auto" or None, default "auto"
        Principal components of the features, learned within training folds; None for raw features.
    scheme : {"sequential", "split", "oob"}, default "sequential"
        How ranking and evaluation are kept apart in :meth:`evaluate`.
    n_folds : int, default 5
        Folds of the sequential scheme.
    level : {"unit", "cluster"}, default "unit"
        ``"cluster"`` fits means of whole clusters, weighted by size: for trials that treat whole
        clusters, often better, since images hardly vary within them.
    spatial_folds : bool, default True
        Keep places whose images overlap in one fold, where ``coords`` and ``gsd`` are known.
    n_jobs : int, optional
        Threads; results do not depend on it.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Attributes
    ----------
    estimates_ : Estimates
        The average effect.
    effect_model_ : effect model
        The fitted learner: ``calibration_test()``, ``average_effect(target)`` and so on.
    representation_ : transformer or None
        The fitted representation.
    compressor_ : Compressor or None
        Its components.
    data_source_ : str
        What was used.

    See Also
    --------
    compare_representations : Which data, features and learner to use.
    ImageClusterEffects : A few types of places.

    Notes
    -----
    Representation and components use images only, never outcomes. The sequential scheme trains on
    folds 1 to k-1 and ranks fold k, k = 2, ..., K; under no heterogeneity the sum of the K-1 RATE
    ratios over sqrt(K-1) is standard normal. Where units share images they are clustered by image
    unless told otherwise.

    References
    ----------
    .. [1] C. T. Jerzak, R. Vashistha and A. Daoud (2024). Effect heterogeneity with Earth
       observation in randomized controlled trials. arXiv:2407.11674
    .. [2] S. Wager (2024). Sequential validation of treatment heterogeneity. arXiv:2405.05534

    Examples
    --------
    >>> from causalfair.datasets import make_image_sequence_trial
    >>> from causalfair.forest import CausalForest
    >>> from causalfair.imagery import ImageSequenceCATE, SequenceFeatures, SpectralFeatures
    >>> frame, truth = make_image_sequence_trial(200, size=12, random_state=0)
    >>> model = ImageSequenceCATE(
    ...     SequenceFeatures(SpectralFeatures()), CausalForest(100), random_state=1
    ... )
    >>> model = model.fit(truth["images"], frame["y"], treatment=frame["treatment"])
    >>> model.predict(truth["images"]).shape
    (200,)
    """

    _title: ClassVar[str] = "Effects given image sequences"
    _estimand: ClassVar[str] = "average effect E[Y(1) - Y(0)], and its variation with the images"
    _assumptions: ClassVar[tuple[str, ...]] = (
        "treatment assigned at random with the probability stated below",
        "one unit's (cluster's) treatment does not act on another's outcome",
        "images taken before treatment",
        "units or clusters drawn independently",
    )
    _citations: ClassVar[tuple[str, ...]] = ("jerzak2024effect", "wager2024sequential")
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "representation": [HasMethods(["fit", "transform"]), None],
        "learner": [HasMethods(["fit", "predict"]), None],
        "data_source": [str],
        "n_components": [Integral, str, None],
        "scheme": [StrOptions({"sequential", "split", "oob"})],
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "level": [StrOptions({"unit", "cluster"})],
        "spatial_folds": ["boolean"],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        representation: Any = None,
        learner: Any = None,
        *,
        data_source: str = "auto",
        n_components: Any = "auto",
        scheme: str = "sequential",
        n_folds: int = 5,
        level: str = "unit",
        spatial_folds: bool = True,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.representation = representation
        self.learner = learner
        self.data_source = data_source
        self.n_components = n_components
        self.scheme = scheme
        self.n_folds = n_folds
        self.level = level
        self.spatial_folds = spatial_folds
        self.n_jobs = n_jobs
        self.random_state = random_state

    @fit_context
    def fit(
        self,
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
        missing_outcome: str = "raise",
    ) -> ImageSequenceCATE:
        """Represent the images and learn effects.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C), or None
            Images; None for tabular covariates only.
        y : array of shape (n_units,) or str
            Outcome, or the name of its column in ``X``.
        treatment : array of shape (n_units,) or str
            Binary treatment; or a dose, for learners that take one (``CausalForest`` and
            ``RLearner``). Effects are then those of one unit more.
        X : frame or array of shape (n_units, p), optional
            Tabular covariates.
        covariates : "all", list of str or formula, optional
            Which columns of ``X`` to use; required where a role is a column name.
        cluster : array, str or list of str, optional
            Units of assignment or sampling. Units that share an image are clustered by it when
            None, unless the treatment never varies within images: then it has to be given.
        sample_weight : array of shape (n_units,) or str, optional
            Sampling weights.
        propensity : float, array of shape (n_units,), "estimate" or None
            Probability of treatment (of a dose: its expectation). The observed share (by stratum)
            when None, ``"estimate"`` for observational data.
        strata : array of shape (n_units,), optional
            Strata of the randomisation.
        individual : bool, default False
            Units were sampled and assigned one by one although they share images; errors then
            ignore the sharing, with a warning.
        missing_outcome : {"raise", "drop"}, default "raise"
            ``"drop"`` leaves out units without outcome, says how many in each arm, and keeps the
            numbers of the others in ``kept_units_``.

        Returns
        -------
        ImageSequenceCATE
            The fitted model.

        Raises
        ------
        DataError
            Lengths that differ, missing values, images without usable frames.
        IdentificationError
            The treatment does not vary, is constant within images without ``cluster``, or folds are
            too small.
        """
        check_components(self.n_components, OWNER)
        sequence = None if images is None else as_sequence(images, owner=OWNER)
        if missing_outcome not in ("raise", "drop"):
            raise ParameterError(
                f"{OWNER} got missing_outcome={missing_outcome!r}; use 'raise' or 'drop'."
            )
        self.kept_units_ = None
        if missing_outcome == "drop":
            roles = {"y": y, "treatment": treatment, "X": X, "cluster": cluster, "strata": strata,
                     "sample_weight": sample_weight, "propensity": propensity}  # fmt: skip
            sequence, roles, self.kept_units_ = drop_missing(sequence, roles, OWNER)
            y, treatment, X, cluster, strata, sample_weight, propensity = roles.values()
        self.data_source_ = resolve_source(self.data_source, sequence, X, OWNER)
        learner = self._learner()
        data, w = self._roles(X, y, treatment, covariates, cluster, sample_weight, learner,
                              sequence, individual)  # fmt: skip
        root = root_seed(self.random_state)
        design = self._design(sequence, data, root)
        self._check_images(sequence, w)
        e, self._propensity_note = assignment_probability(propensity, strata, w, OWNER)
        trial = Trial(data, design, w, e, self._groups(sequence, data))
        if self.level == "cluster":
            trial = as_clusters(trial, OWNER)
            self._cluster_note = (
                f"One row a cluster: means of {data.n:,} units, weighted by their number."
            )
        self.compressor_ = trial.design.compressor()
        self.effect_model_ = self._train(learner, trial, self.compressor_, slice(None), root, 0)
        self.estimates_ = self.effect_model_.estimates_
        folds = self._cross_rank(learner, trial, root)
        self._remember(trial, folds, root)
        digest = None if self.scheme == "oob" else fold_hash(folds)
        return self._finish(trial.data, seed=root, folds=digest)  # type: ignore[no-any-return]

    # Parts of the fit -----------------------------------------------------------------------------

    def _learner(self) -> Any:
        from causalfair.forest import CausalForest

        learner = CausalForest() if self.learner is None else self.learner
        known = not isinstance(learner, type) and "treatment" in signature(learner.fit).parameters
        if not known:
            name = learner.__name__ if isinstance(learner, type) else type(learner).__name__
            remedy = (
                f"give an instance, {name}()."
                if isinstance(learner, type)
                else f"wrap it, as in RLearner(effect_learner={name}())."
            )
            raise ParameterError(
                f"{OWNER} got learner={name}, which does not learn effects (its fit takes no "
                f"treatment). Use one of causalfair.forest; {remedy}"
            )
        return learner

    def _roles(
        self, X: Any, y: Any, treatment: Any, covariates: Any, cluster: Any, sample_weight: Any,
        learner: Any, sequence: ImageSequence | None, individual: bool,
    ) -> tuple[RoleData, FloatArray]:  # fmt: skip
        if X is None and any(isinstance(role, str) for role in (y, treatment, cluster)):
            raise DataError(f"{OWNER}: a role is given by column name, but there is no X.")
        if "tabular" not in self.data_source_ and covariates is None:
            covariates = [] if X is not None else None
        table = np.empty((len(y), 0)) if X is None else X

        def resolve(groups: Any) -> RoleData:
            return resolve_roles(
                table, y, owner=OWNER, covariates=covariates, roles={"treatment": treatment},
                cluster=groups, sample_weight=sample_weight,
                allow_nan=bool(learner.__sklearn_tags__().input_tags.allow_nan),
            )  # fmt: skip

        data = resolve(cluster)
        if np.unique(data.roles["treatment"]).size < 2:
            raise IdentificationError(
                f"{OWNER}: treatment takes one value in all {data.n} units; it must vary."
            )
        w = _treatment(data.roles["treatment"], learner)
        refuse_copies(data.covariates, w, OWNER)
        if sequence is not None and sequence.n_units != data.n:
            raise DataError(
                f"{OWNER}: the images have {sequence.n_units} units, y has {data.n}. Give "
                "ImageSequence(image_of_unit=...) where units share images."
            )
        shared = None if sequence is None else sequence.image_of_unit
        groups = guard_clusters(cluster, individual, shared, w, OWNER)
        if groups is not cluster:
            data = resolve(groups)
            self._cluster_note = "Clusters: units that share an image."
        else:
            self._cluster_note = ""
        return data, w

    def _check_images(self, sequence: ImageSequence | None, w: FloatArray) -> None:
        self.acquisition_difference_ = 0.0
        self.calendar_ = None if sequence is None else Calendar.of(sequence)
        self.placebo_ = bool(
            sequence is not None and sequence.on_post == "allow" and sequence.n_post
        )
        share = getattr(self.representation_, "seen_share_", None)
        if sequence is not None and share is not None:
            self.acquisition_difference_ = acquisition_check(share[sequence.row_of_unit], w, OWNER)

    def _design(self, sequence: ImageSequence | None, data: RoleData, root: Any) -> Design:
        self.representation_, raw, names, rows = None, None, [], None
        if self.data_source_ != "tabular" and sequence is not None:
            seen = sequence.latest() if "image" in self.data_source_ else sequence
            representation = self.representation
            representation = SequenceFeatures() if representation is None else representation
            representation = _seeded(representation, root, REPRESENT, self.n_jobs)
            _check_latest(representation, seen)
            raw = np.asarray(representation.fit_transform(seen), dtype=np.float64)
            if raw.ndim != 2 or len(raw) != len(seen.row_image):
                name = type(representation).__name__
                hint = (
                    f" Frames have to be pooled: SequenceFeatures({name}(...))."
                    if isinstance(representation, FrameEncoder)
                    else ""
                )
                raise DataError(
                    f"{OWNER}: the representation returned shape {raw.shape} for "
                    f"{len(seen.row_image)} places; it must be (n_images, D).{hint}"
                )
            if not np.isfinite(raw).all():
                raise DataError(f"{OWNER}: the representation returned missing values.")
            self.representation_, rows = representation, seen.row_of_unit
            names = feature_names(representation, raw.shape[1])
        if "tabular" in self.data_source_ and not data.covariates.shape[1]:
            raise DataError(f"{OWNER}: data_source={self.data_source_!r}, but X has no covariates.")
        tabular = data.covariates
        if "tabular" not in self.data_source_:
            tabular = tabular.iloc[:, :0]
        blocks = getattr(self.representation_, "block_of_feature_", None)
        design = Design(raw, names, rows, tabular, self.n_components, blocks)
        warn_if_wide(design, OWNER)
        return design

    def _groups(self, sequence: ImageSequence | None, data: RoleData) -> IntArray | None:
        """What folds must not part: clusters, and places whose images overlap."""
        groups = None if data.cluster is None else data.cluster[:, 0]
        if self.spatial_folds and sequence is not None and self.scheme != "oob":
            groups = spatial_groups(sequence, groups, data.n)
        return groups

    def _train(
        self, learner: Any, trial: Trial, compressor: Any, units: Any, root: Any, key: int, *,
        scores: bool = True,
    ) -> Any:  # fmt: skip
        """A copy of the learner fitted to some units; without ``scores`` only to rank others."""
        fresh = _seeded(learner, root, LEARN, self.n_jobs, key)
        data, e = trial.data, trial.propensity
        cluster, weight = data.cluster, data.sample_weight
        fit = fresh.fit if scores else getattr(fresh, "_fit_predictor", fresh.fit)
        with warnings.catch_warnings():
            if not scores:  # averages of a part of the units, which nobody reads
                warnings.simplefilter("ignore", SmallSampleWarning)
            return fit(
                trial.design.frame(compressor, units),
                data.y[units],  # type: ignore[index]
                treatment=trial.w[units],
                nuisances=None if e is None else {"propensity": e[units]},
                cluster=None if cluster is None else cluster[units],
                sample_weight=None if weight is None else weight[units],
            )

    def _cross_rank(self, learner: Any, trial: Trial, root: Any) -> IntArray:
        """Rank units by models that did not see them; fold in which each is evaluated, or -1."""
        effect = np.asarray(self.effect_model_.predict(None), dtype=np.float64)
        if self.scheme == "oob":
            self._priority = effect
            return np.zeros(effect.size, dtype=np.intp)
        count = 2 if self.scheme == "split" else self.n_folds
        binary = self.effect_model_.sample_.binary
        folds = make_folds(
            effect.size, count, seed=child_seed(root, FOLDS), groups=trial.groups,
            stratify=trial.w if binary and trial.data.cluster is None else None,
        )  # fmt: skip
        if binary:
            _check_arms(folds, trial.w, count)
        self._priority = np.full(effect.size, np.nan)
        for fold in progress(range(1, count), "ranking"):
            train, test = np.flatnonzero(folds < fold), np.flatnonzero(folds == fold)
            compressor = trial.design.compressor(train)
            model = self._train(learner, trial, compressor, train, root, fold, scores=False)
            self._priority[test] = model.predict(trial.design.frame(compressor, test))
        return np.where(folds == 0, -1, folds)

    def _remember(self, trial: Trial, folds: IntArray, root: Any) -> None:
        """What evaluation and support need: a few numbers a unit and a place."""
        design, data = trial.design, trial.data
        self._folds, self._seed = folds, child_seed(root, RATE)
        self._tabular_names = tuple(map(str, design.tabular.columns))
        self._support_reference = None
        if design.raw is not None and design.row_of_unit is not None:
            groups = None if data.cluster is None else data.cluster[:, 0]
            self._support_reference = SupportReference.learn(design.raw, design.row_of_unit, groups)


def _seeded(estimator: Any, root: Any, key: int, n_jobs: int | None, *more: int) -> Any:
    """A clone with its seed and threads set where the user set none."""
    if getattr(estimator, "_is_cached", False):
        return estimator
    fresh = clone(estimator)
    known = fresh.get_params(deep=False)
    if "random_state" in known and known["random_state"] is None:
        fresh.set_params(random_state=int_seed(root, key, *more))
    fresh = seeded(fresh, child_seed(root, key, *more))  # what is nested in it
    if n_jobs is not None and "n_jobs" in known and known["n_jobs"] is None:
        fresh.set_params(n_jobs=n_jobs)
    return fresh


def _treatment(values: Any, learner: Any) -> FloatArray:
    """Treatment coded 0/1, or a dose where the learner takes one."""
    array = np.asarray(values)
    dose = array.dtype.kind in "iuf" and np.unique(array).size > 2
    if dose and not getattr(learner, "_binary_only", False):
        return check_numeric(array, "treatment", owner=OWNER)
    return check_binary(array, "treatment", owner=OWNER).values


def _check_latest(representation: Any, sequence: ImageSequence) -> None:
    """Only pooled features know which frame is the latest that can be used."""
    inner = getattr(representation, "representation", representation)
    known = isinstance(inner, SequenceFeatures | TorchSequenceEncoder)
    if sequence._latest_only and sequence.shape[1] > 1 and not known:
        raise ParameterError(
            f"{OWNER}: data_source='image' keeps the latest frame through SequenceFeatures; "
            f"{type(inner).__name__} would see all {sequence.shape[1]}. Give images with one frame."
        )


def _check_arms(folds: IntArray, w: FloatArray, count: int) -> None:
    """Every fold needs two units of each arm."""
    for fold in range(count):
        treated = int(w[folds == fold].sum())
        control = int((folds == fold).sum()) - treated
        if min(treated, control) < 2:
            raise IdentificationError(
                f"{OWNER}: fold {fold} has {treated} treated and {control} untreated units; each "
                "needs two. Use fewer folds (n_folds=), or scheme='split'."
            )
