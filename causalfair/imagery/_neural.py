"""Effects by a neural network of image sequences (extra ``torch``)."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from causalfair._core.compat import HasMethods, Interval, fit_context
from causalfair._core.crossfit import fold_hash, make_folds
from causalfair._core.logging import progress
from causalfair._core.optional import import_optional
from causalfair._core.random import child_seed, int_seed, root_seed
from causalfair._core.typing import FloatArray, IntArray
from causalfair.exceptions import DataError, IdentificationError
from causalfair.forest._base import EffectModel, Problem
from causalfair.forest._origin import ModelArray
from causalfair.forest._sample import EffectSample
from causalfair.imagery._blocks import threads_of
from causalfair.imagery._design import assignment_probability, guard_clusters
from causalfair.imagery._estimator import REPRESENT, _seeded
from causalfair.imagery._features import whole_images
from causalfair.imagery._frames import FrameEncoder, check_schema
from causalfair.imagery._neural_net import Frames, Settings, Trained, train_network
from causalfair.imagery._pooling import latest_frame, seen_frames
from causalfair.imagery._sequence import ImageSequence, as_sequence
from causalfair.imagery._spatial import image_groups, spatial_groups
from causalfair.imagery._spectral import SpectralFeatures

__all__ = ["NeuralSequenceEffects"]

OWNER = "NeuralSequenceEffects.fit"
LEAST_IMAGES = 300
HELD_OUT = 5  # one in so many units decides when to stop
NETWORK, FOLDS, STOP = 20, 21, 22  # keys of the random streams


class NeuralSequenceEffects(EffectModel):
    """Effects by a network that attends over the frames of each place (extra ``torch``).

    Features of frames stay as they are; attention over time, a shared layer and two heads, for the
    outcome without treatment and for the effect, are learned. Everything said of the trial rests on
    predictions for units that the networks did not see.

    Parameters
    ----------
    frame_features : encoder of frames, optional
        :class:`SpectralFeatures` when None; :class:`TorchFrameEncoder` for a pretrained network.
    width : int, default 32
        Width of a head and of the shared layer.
    heads : int, default 4
        Heads of the attention.
    n_folds : int, default 3
        Folds of the cross-fitting; images and clusters are never parted.
    n_repeats : int, default 2
        Repetitions with other folds, averaged.
    epochs : int, default 200
        At most so many passes over the data.
    patience : int, default 20
        Passes without a fall of the R-loss of the units held out, after which training stops.
    learning_rate : float, default 0.003
        Of AdamW.
    weight_decay : float, default 0.01
        Of AdamW.
    noise : float, default 0.05
        Standard deviation of noise on the standardised features while training.
    spatial_folds : bool, default True
        Keep places whose images overlap in one fold, where ``coords`` and ``gsd`` are known.
    n_jobs : int, optional
        Threads of the features.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Attributes
    ----------
    estimates_ : Estimates
        The average effect.
    networks_ : list of Trained
        ``n_repeats * n_folds`` networks; their mean predicts other places.
    frame_features_ : FrameEncoder
        The fitted encoder.

    See Also
    --------
    ImageSequenceCATE : Forests and linear learners; needs no network and fewer places.

    Notes
    -----
    With tokens ``[phi, phi t, clock(t)]`` of a frame, head h pools values by softmax weights of its
    key; mean squared error of ``y - mu0(h) - w tau(h)`` is minimised, and the epoch with the least
    R-loss on a fifth of the training clusters is kept. Networks have no standard errors: intervals
    are those of averages and projections of doubly robust scores. For a test of the ranking, fit to
    one half and rank the other: folds of a cross-fit must not be pooled. Images are not augmented,
    since features are computed once.

    References
    ----------
    .. [1] U. Shalit, F. Johansson and D. Sontag (2017). Estimating individual treatment effect:
       generalization bounds and algorithms. PMLR 70, 3076-3085, section 5. arXiv:1606.03976

    Examples
    --------
    >>> from causalfair.imagery import NeuralSequenceEffects
    >>> NeuralSequenceEffects(width=16, random_state=0)
    NeuralSequenceEffects(random_state=0, width=16)
    """

    _title: ClassVar[str] = "Effects by a network of image sequences"
    _assumptions: ClassVar[tuple[str, ...]] = (
        "treatment assigned at random with the probability stated below",
        "one unit's (cluster's) treatment does not act on another's outcome",
        "images taken before treatment",
    )
    _citations: ClassVar[tuple[str, ...]] = ("jerzak2024effect", "shalit2017estimating")
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "frame_features": [HasMethods(["fit", "transform"]), None],
        "width": [Interval(Integral, 1, None, closed="left")],
        "heads": [Interval(Integral, 1, None, closed="left")],
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "n_repeats": [Interval(Integral, 1, None, closed="left")],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "noise": [Interval(Real, 0, None, closed="left")],
        "spatial_folds": ["boolean"],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        frame_features: Any = None,
        *,
        width: int = 32,
        heads: int = 4,
        n_folds: int = 3,
        n_repeats: int = 2,
        epochs: int = 200,
        patience: int = 20,
        learning_rate: float = 0.003,
        weight_decay: float = 0.01,
        noise: float = 0.05,
        spatial_folds: bool = True,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.frame_features = frame_features
        self.width = width
        self.heads = heads
        self.n_folds = n_folds
        self.n_repeats = n_repeats
        self.epochs = epochs
        self.patience = patience
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.noise = noise
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
        cluster: Any = None,
        sample_weight: Any = None,
        propensity: Any = None,
        strata: Any = None,
        individual: bool = False,
        force: bool = False,
    ) -> NeuralSequenceEffects:
        """Make the features and train the networks.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C)
            Images.
        y : array of shape (n_units,)
            Outcome.
        treatment : array of shape (n_units,)
            Binary treatment.
        cluster, sample_weight : array of shape (n_units,), optional
            As for :meth:`ImageSequenceCATE.fit`.
        propensity : float or array of shape (n_units,), optional
            Known probability of treatment; the observed share (by stratum) when None.
        strata : array of shape (n_units,), optional
            Strata of the randomisation.
        individual : bool, default False
            As for :meth:`ImageSequenceCATE.fit`.
        force : bool, default False
            Train although there are fewer than 300 places.

        Returns
        -------
        NeuralSequenceEffects
            The fitted model.

        Raises
        ------
        ConvergenceError
            The loss of a network is never finite.
        DataError
            Fewer than 300 places without ``force``; lengths that differ.
        IdentificationError
            The treatment does not vary, or is constant within images without ``cluster``.
        MissingDependencyError
            torch is not installed.
        """
        import_optional("torch", extra="torch")
        sequence = as_sequence(images, owner=OWNER)
        places = np.unique(sequence.image_of_unit).size
        if places < LEAST_IMAGES and not force:
            raise DataError(
                f"{OWNER}: {places} places are few for a network, which will fit noise; "
                f"{LEAST_IMAGES} are asked for. Use ImageSequenceCATE, or force=True."
            )
        problem = self._problem(sequence, y, treatment, cluster, sample_weight, individual)
        e, self._propensity_note = assignment_probability(propensity, strata, problem.w, OWNER)
        if e is None:
            raise IdentificationError(
                f"{OWNER}: propensity='estimate' is for observational data; networks are for "
                "trials here. Use ImageSequenceCATE."
            )
        root = root_seed(self.random_state)
        frames = self._frames(sequence, root)
        groups = image_groups(sequence, problem.cluster, problem.n)
        if self.spatial_folds:
            groups = spatial_groups(sequence, groups, problem.n)
        folds, both = self._cross_fit(frames, sequence.row_of_unit, problem, e, groups, root)
        effect = both[:, 1]
        expected = both[:, 0] + e * effect
        sample = EffectSample(
            effect, problem.y - expected, problem.w - e, e, e * (1 - e), True, problem.weight,
            problem.data.cluster, problem.data.sample_id(),
        )  # fmt: skip
        self._folds = folds[:, 0]
        fitted: NeuralSequenceEffects = self._complete(problem, sample, root, fold_hash(folds))
        return fitted

    def _problem(
        self, sequence: ImageSequence, y: Any, treatment: Any, cluster: Any, sample_weight: Any,
        individual: bool,
    ) -> Problem:  # fmt: skip
        def resolve(groups: Any) -> Problem:
            return Problem(
                np.empty((np.size(y), 0)), y, owner=OWNER, treatment=treatment, nuisances=None,
                binary_only=True, allow_nan=False, need_covariates=False, cluster=groups,
                sample_weight=sample_weight,
            )  # fmt: skip

        problem = resolve(cluster)
        if sequence.n_units != problem.n:
            raise DataError(
                f"{OWNER}: the images have {sequence.n_units} units, y has {problem.n}."
            )
        groups = guard_clusters(cluster, individual, sequence.image_of_unit, problem.w, OWNER)
        return problem if groups is cluster else resolve(groups)

    def _frames(self, sequence: ImageSequence, root: Any = None) -> Frames:
        """Features of the frames of every row; the encoder is fitted when ``root`` is given."""
        if root is not None:
            encoder = SpectralFeatures() if self.frame_features is None else self.frame_features
            if not isinstance(encoder, FrameEncoder):
                raise DataError(
                    f"{OWNER} got frame_features of type {type(encoder).__name__}, which does not "
                    "encode frames; use RandomConvolutionFeatures, SpectralFeatures or "
                    "TorchFrameEncoder."
                )
            self.frame_features_ = _seeded(encoder, root, REPRESENT, self.n_jobs).fit(sequence)
        width = len(self.frame_features_.get_feature_names_out())
        by_image = np.full((sequence.n_images, sequence.shape[1], width), np.nan, dtype=np.float32)
        with threads_of(self.frame_features_._own_threads):
            for numbers, values in whole_images(self.frame_features_, sequence, self.n_jobs):
                by_image[numbers] = values
        phi, when = by_image[sequence.row_image], sequence.relative_years()
        seen = seen_frames(phi, sequence.usable, when)
        if sequence._latest_only:
            seen = latest_frame(seen, when)
        if not seen.any(axis=1).all():
            raise DataError(
                f"{OWNER}: {int((~seen.any(axis=1)).sum())} place(s) have no usable frame; leave "
                "their units out with ImageSequence.subset."
            )
        return Frames(np.where(seen[..., None], phi, 0), seen, np.where(seen, when, 0.0))

    def _cross_fit(
        self, frames: Frames, row: IntArray, problem: Problem, e: FloatArray,
        groups: IntArray | None, root: Any,
    ) -> tuple[IntArray, FloatArray]:  # fmt: skip
        """Folds (n, repeats), and predictions for units the networks did not see, averaged."""
        settings = Settings(
            self.width, self.heads, self.epochs, self.patience, self.learning_rate,
            self.weight_decay, self.noise,
        )  # fmt: skip
        weight = np.ones(problem.n) if problem.weight is None else problem.weight
        folds = np.empty((problem.n, self.n_repeats), dtype=np.intp)
        both = np.zeros((problem.n, 2))
        self.networks_: list[Trained] = []
        tasks = [(r, k) for r in range(self.n_repeats) for k in range(self.n_folds)]
        for repeat, fold in progress(tasks, "networks"):
            if fold == 0:
                folds[:, repeat] = make_folds(
                    problem.n, self.n_folds, seed=child_seed(root, FOLDS, repeat), groups=groups,
                    stratify=problem.w if groups is None else None,
                )  # fmt: skip
            train = np.flatnonzero(folds[:, repeat] != fold)
            test = np.flatnonzero(folds[:, repeat] == fold)
            stop = make_folds(
                train.size, HELD_OUT, seed=child_seed(root, STOP, repeat, fold), stratify=None,
                groups=None if groups is None else np.unique(groups[train], return_inverse=True)[1],
            )  # fmt: skip
            network = train_network(
                frames, row[train], problem.y[train], problem.w[train], e[train], weight[train],
                stop == 0, settings, int_seed(root, NETWORK, repeat, fold) % 2**31,
            )  # fmt: skip
            self.networks_.append(network)
            places, at = np.unique(row[test], return_inverse=True)
            both[test] += network.predict(frames.take(places))[at] / self.n_repeats
        return folds, both

    def _fold_of_row(self) -> Any:
        return self._folds

    def predict(self, images: Any = None) -> FloatArray:
        """Effect of the treatment given images.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C), optional
            Other places, predicted by the mean of all networks. None: the units of the trial, each
            by networks that did not see it.

        Returns
        -------
        ndarray of shape (n_units,)
            Effects in units of the outcome.
        """
        check_is_fitted(self)
        if images is None:
            return ModelArray.tag(self.sample_.effect, "out-of-sample", self._identity)
        sequence = as_sequence(images, owner="NeuralSequenceEffects.predict")
        check_schema(self.frame_features_, sequence, "NeuralSequenceEffects.predict")
        frames = self._frames(sequence)
        effect = np.mean([network.predict(frames)[:, 1] for network in self.networks_], axis=0)
        return np.asarray(effect[sequence.row_of_unit])

    def _summary_notes(self) -> list[str]:
        epochs = [len(network.losses) for network in self.networks_]
        return [
            self._propensity_note[0].upper() + self._propensity_note[1:] + ".",
            f"{len(epochs)} networks of {min(epochs)} to {max(epochs)} epochs; they have no "
            "standard errors of their own.",
        ]
