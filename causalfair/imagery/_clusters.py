"""Bayesian model of a few types of places with one effect each."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from causalfair._core.base import CausalEstimator
from causalfair._core.compat import (
    HasMethods,
    Interval,
    StrOptions,
    fit_context,
    posterior_dataset,
)
from causalfair._core.crossfit import make_folds
from causalfair._core.logging import progress, warn
from causalfair._core.random import child_seed, generator, int_seed, root_seed
from causalfair._core.roles import resolve_roles
from causalfair._core.sampling import judge, run_nuts
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_binary
from causalfair.exceptions import CausalFairWarning, DataError, ParameterError
from causalfair.imagery._compress import Compressor
from causalfair.imagery._design import guard_clusters
from causalfair.imagery._estimator import REPRESENT, _seeded
from causalfair.imagery._features import SequenceFeatures
from causalfair.imagery._sensitivity import pixel_gradient, through_components
from causalfair.imagery._sequence import as_sequence
from causalfair.imagery._types import Pull, Types, choose_types, fit_types, type_probabilities
from causalfair.inference import DrawEstimates

__all__ = ["ImageClusterEffects", "build_model"]

OWNER = "ImageClusterEffects.fit"
LEAST_MEMBERS = 10  # five an arm
STARTS, BOOTSTRAP, SAMPLER, CHOICE = 10, 11, 12, 13


class ImageClusterEffects(CausalEstimator):
    """A few types of places, told apart by images, with one effect each.

    Each place is of one of K types; images move the probabilities of the types, and a type moves
    the effect only. The untreated outcome is free in the images.

    Parameters
    ----------
    n_types : int or "auto", default 2
        Number of types K; ``"auto"`` takes the one of 1 to 3 with the largest likelihood in
        clusters that were left out.
    representation : transformer of image sequences, optional
        :class:`SequenceFeatures` when None.
    n_components : int, default 5
        Principal components that enter; at most 20.
    sampler : {"nutpie", "pymc", "em"}, default "nutpie"
        Posterior by NUTS, or penalised maximum likelihood with a cluster bootstrap.
    draws, tune : int, default 1000
        Draws and warm-up a chain; for ``"em"``, ``draws`` is the number of bootstrap samples.
    chains : int, default 4
        Chains.
    causal_penalty : float, default 0.0
        For ``"em"``: subtracts this times the squared difference of the average effect that the
        types imply from the difference in means (in standard deviations of the outcome) from the
        log-likelihood. Large values pin the average effect.
    n_jobs : int, optional
        Threads of the features.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Attributes
    ----------
    estimates_ : DrawEstimates
        Terms ``effect, type k`` in ascending order, ``share, type k`` and ``ATE``.
    posterior_ : object
        The native posterior (None for ``"em"``).
    convergence_ : Convergence
        What the chains say of themselves (not for ``"em"``).
    types_ : Types
        Point estimates.
    n_types_ : int
        Number of types. One says that no image-based types were found.
    uncertainty_ : float
        Mean entropy of the type probabilities over its largest value: 0 where images tell the type
        surely, 1 where they say nothing.
    cv_log_likelihood_ : ndarray of shape (3,) or None
        Mean log-likelihood of a unit left out, by number of types, for ``n_types="auto"``.

    See Also
    --------
    ImageSequenceCATE : Effects that vary smoothly.

    Notes
    -----
    Z | phi ~ Cat(softmax(B [1, phi])), Y(0) | phi, Z ~ N(mu(phi), s0^2), Y(1) adds the effect of
    the type and has its own variance. Z is summed out. Priors on the standardised outcome: effects
    ordered normal around the difference in means, logits and coefficients N(0, 1), log scales
    N(log sd, 0.5). With clusters, the untreated outcome has a normal effect of each cluster. Only
    the sum of the variances of noise and effect is identified within a type.

    References
    ----------
    .. [1] C. T. Jerzak, F. Johansson and A. Daoud (2023). Image-based treatment effect
       heterogeneity. PMLR 213, 531-552. arXiv:2206.06417

    Examples
    --------
    >>> from causalfair.datasets import make_image_types_trial
    >>> from causalfair.imagery import ImageClusterEffects, SequenceFeatures, SpectralFeatures
    >>> frame, truth = make_image_types_trial(300, random_state=0)
    >>> model = ImageClusterEffects(
    ...     representation=SequenceFeatures(SpectralFeatures()), sampler="em", draws=20,
    ...     random_state=1,
    ... ).fit(truth["images"], frame["y"], treatment=frame["treatment"])
    >>> low, high = model.types_.effect
    >>> bool(low < high)
    True
    """

    _title: ClassVar[str] = "Types of places by effect"
    _estimand: ClassVar[str] = "effect of each latent type, and its probability given the images"
    _assumptions: ClassVar[tuple[str, ...]] = (
        "treatment assigned at random",
        "images taken before treatment",
        "normal outcomes within type and arm",
        "types move the effect only",
    )
    _citations: ClassVar[tuple[str, ...]] = ("jerzak2023image",)
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_types": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "representation": [HasMethods(["fit", "transform"]), None],
        "n_components": [Interval(Integral, 1, 20, closed="both")],
        "sampler": [StrOptions({"nutpie", "pymc", "em"})],
        "draws": [Interval(Integral, 2, None, closed="left")],
        "tune": [Interval(Integral, 1, None, closed="left")],
        "chains": [Interval(Integral, 1, None, closed="left")],
        "causal_penalty": [Interval(Real, 0, None, closed="left")],
        "n_jobs": [Integral, None],
    }

    posterior_: Any

    def __init__(
        self,
        n_types: int | str = 2,
        *,
        representation: Any = None,
        n_components: int = 5,
        sampler: str = "nutpie",
        draws: int = 1000,
        tune: int = 1000,
        chains: int = 4,
        causal_penalty: float = 0.0,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_types = n_types
        self.representation = representation
        self.n_components = n_components
        self.sampler = sampler
        self.draws = draws
        self.tune = tune
        self.chains = chains
        self.causal_penalty = causal_penalty
        self.n_jobs = n_jobs
        self.random_state = random_state

    @fit_context
    def fit(
        self, images: Any, y: Any, *, treatment: Any, cluster: Any = None, individual: bool = False
    ) -> ImageClusterEffects:
        """Represent the images and fit the types.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C)
            Images.
        y : array of shape (n_units,)
            Outcome.
        treatment : array of shape (n_units,)
            Binary treatment.
        cluster : array of shape (n_units,), optional
            Units of assignment or sampling; as for :class:`ImageSequenceCATE`.
        individual : bool, default False
            As for :class:`ImageSequenceCATE`.

        Returns
        -------
        ImageClusterEffects
            The fitted model.

        Raises
        ------
        DataError
            Lengths that differ, or images that do not vary.
        """
        sequence = as_sequence(images, owner=OWNER)
        if self.causal_penalty and self.sampler != "em":
            raise ParameterError(
                f"{OWNER} got causal_penalty={self.causal_penalty!r} with sampler="
                f"{self.sampler!r}; it is for sampler='em'."
            )

        def resolve(groups: Any) -> Any:
            return resolve_roles(
                np.empty((len(y), 0)),
                y,
                owner=OWNER,
                roles={"treatment": treatment},
                cluster=groups,
            )

        data = resolve(cluster)
        w = check_binary(data.roles["treatment"], "treatment", owner=OWNER).values
        if sequence.n_units != data.n:
            raise DataError(f"{OWNER}: the images have {sequence.n_units} units, y has {data.n}.")
        groups = guard_clusters(cluster, individual, sequence.image_of_unit, w, OWNER)
        data = data if groups is cluster else resolve(groups)
        root = root_seed(self.random_state)
        phi = self._represent(sequence, root)[sequence.row_of_unit]
        center, scale = data.y.mean(), data.y.std()
        standard = (data.y - center) / scale
        codes = None if data.cluster is None else data.cluster[:, 0]
        self.n_types_ = self._choose(phi, standard, w, codes, root)
        if self.sampler == "em":
            draws, self.types_ = self._bootstrap(phi, standard, w, codes, root)
            self.posterior_ = None
        else:
            draws, self.types_ = self._sample(phi, standard, w, codes, root)
        K = self.n_types_
        self._judge_types(phi)
        draws[:, :K] *= scale
        draws[:, -1] *= scale
        self.scale_ = float(scale)
        names = [f"effect, type {k + 1}" for k in range(K)]
        names += [f"share, type {k + 1}" for k in range(K)] + ["ATE"]
        self.estimates_ = DrawEstimates(draws, names)
        return self._finish(data, seed=root)  # type: ignore[no-any-return]

    def _pull(self, y: FloatArray, w: FloatArray) -> Pull | None:
        if not self.causal_penalty or self.n_types_ == 1:
            return None
        return Pull(float(self.causal_penalty), float(y[w == 1].mean() - y[w == 0].mean()))

    def _judge_types(self, phi: FloatArray) -> None:
        """How surely images tell types apart, and types that hardly anybody belongs to."""
        p = type_probabilities(self.types_.logits, phi)
        information = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1).mean()
        self.uncertainty_ = float(information / np.log(p.shape[1])) if p.shape[1] > 1 else 0.0
        members = p.sum(axis=0)
        if members.min() < LEAST_MEMBERS:
            warn(
                f"{OWNER}: degenerate type: type {int(members.argmin()) + 1} has "
                f"{members.min():.1f} members. Use fewer types.",
                CausalFairWarning,
            )

    def _represent(self, sequence: Any, root: Any) -> FloatArray:
        representation = SequenceFeatures() if self.representation is None else self.representation
        self.representation_ = _seeded(representation, root, REPRESENT, self.n_jobs)
        raw = np.asarray(self.representation_.fit_transform(sequence), dtype=float)
        self.compressor_ = Compressor("auto").fit(raw)
        if self.compressor_.components_ is None:
            raise DataError(f"{OWNER}: the image features are the same in all places.")
        self.compressor_.components_ = self.compressor_.components_[: self.n_components]
        Z = self.compressor_.transform(raw)
        self.spread_ = Z.std(axis=0)
        return np.asarray(Z / self.spread_)

    def _choose(self, phi: FloatArray, y: FloatArray, w: FloatArray, codes: Any, root: Any) -> int:
        self.cv_log_likelihood_ = None
        if self.n_types != "auto":
            return int(self.n_types)
        folds = make_folds(len(y), 5, seed=child_seed(root, CHOICE, 0), stratify=None, groups=codes)
        self.cv_log_likelihood_ = choose_types(phi, y, w, folds, child_seed(root, CHOICE, 1))
        return int(self.cv_log_likelihood_.argmax()) + 1

    def _bootstrap(
        self, phi: FloatArray, y: FloatArray, w: FloatArray, codes: Any, root: Any
    ) -> tuple[FloatArray, Types]:
        best = fit_types(
            phi, y, w, self.n_types_, generator(root, STARTS), pull=self._pull(y, w)
        )  # fmt: skip
        codes = np.arange(len(y)) if codes is None else codes
        members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
        out = []
        for b in progress(range(self.draws), "bootstrap"):
            rng = generator(root, BOOTSTRAP, b)
            drawn = rng.integers(0, len(members), len(members))
            rows = np.concatenate([members[g] for g in drawn])
            if np.ptp(w[rows]) == 0:  # one arm only
                continue
            fit = fit_types(phi[rows], y[rows], w[rows], self.n_types_, rng, n_starts=3, most=200,
                            pull=self._pull(y[rows], w[rows]))  # fmt: skip
            p = type_probabilities(fit.logits, phi).mean(axis=0)
            out.append(np.r_[fit.effect, p, p @ fit.effect])
        if len(out) < self.draws:
            warn(
                f"{OWNER}: {self.draws - len(out)} of {self.draws} bootstrap samples had one arm "
                "only and were left out; there are too few clusters for intervals.",
                CausalFairWarning,
            )
        return np.array(out), best

    def _sample(
        self, phi: FloatArray, y: FloatArray, w: FloatArray, codes: Any, root: Any
    ) -> tuple[FloatArray, Types]:
        self.posterior_ = run_nuts(
            build_model(phi, y, w, self.n_types_, codes), sampler=self.sampler, draws=self.draws,
            tune=self.tune, chains=self.chains, seed=int_seed(root, SAMPLER), target_accept=0.95,
        )  # fmt: skip
        posterior = posterior_dataset(self.posterior_)
        self.convergence_ = judge(self.posterior_, ["effect"])
        self.convergence_.warn(OWNER, "Draw longer, or use fewer types.")

        def flat(name: str) -> FloatArray:
            value = np.asarray(posterior[name])
            return value.reshape(-1, *value.shape[2:])

        effect = flat("effect")
        full = np.zeros((len(effect), 1 + phi.shape[1], self.n_types_))
        if self.n_types_ > 1:
            full[:, :, 1:] = flat("logits")
        share = np.array([type_probabilities(b, phi).mean(axis=0) for b in full])
        ate = (share * effect).sum(axis=1)
        point = Types(
            effect.mean(axis=0), full.mean(axis=0), flat("outcome").mean(axis=0),
            (flat("noise") ** 2).mean(axis=0), np.zeros(0),
        )  # fmt: skip
        return np.column_stack([effect, share, ate]), point

    def predict(self, images: Any) -> FloatArray:
        """Effect at each place: type effects weighted by type probabilities.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C)
            Places.

        Returns
        -------
        ndarray of shape (n_units,)
            Effects.
        """
        p = self.predict_proba(images)
        return np.asarray(p @ self.types_.effect * self.scale_)

    def predict_proba(self, images: Any) -> FloatArray:
        """Probability of each type at each place.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C)
            Places.

        Returns
        -------
        ndarray of shape (n_units, n_types)
            Rows sum to one.
        """
        check_is_fitted(self)
        sequence = as_sequence(images, owner="ImageClusterEffects.predict_proba")
        raw = np.asarray(self.representation_.transform(sequence), dtype=float)
        phi = self.compressor_.transform(raw) / self.spread_
        return type_probabilities(self.types_.logits, phi[sequence.row_of_unit])

    def sensitivity_map(
        self, images: Any, unit: int, *, type_number: int | None = None
    ) -> FloatArray:
        """How the effect, or the probability of a type, changes with every pixel of a place.

        Parameters
        ----------
        images : ImageSequence or array of shape (n, T, H, W, C)
            Images.
        unit : int
            Which unit.
        type_number : int, optional
            The type whose probability is meant, from 1; the effect when None.

        Returns
        -------
        ndarray of shape (T, H, W, C)
            Derivatives with respect to scaled pixels, exact for random convolutional features with
            poolings that are linear in the frames. Add up bands and frames, or draw them by
            :func:`plot_occlusion`.

        Raises
        ------
        ParameterError
            Another representation or pooling, or no such type.

        Notes
        -----
        Chain rule through the type probabilities, the components, the pooling and the rectified
        responses. Derivatives tell what a small change would do; :func:`occlusion_map` tells what
        a part of the image does.
        """
        owner = "ImageClusterEffects.sensitivity_map"
        check_is_fitted(self)
        number = self._type_number(type_number, owner)
        own = as_sequence(images, owner=owner).subset(np.array([unit]))
        raw = np.asarray(self.representation_.transform(own), dtype=float)
        phi = self.compressor_.transform(raw) / self.spread_
        p = type_probabilities(self.types_.logits, phi)[0]
        slopes = self.types_.logits[1:]
        pull = p * (slopes - slopes @ p[:, None])  # d pi_z / d phi, (m, K)
        wanted = self.types_.effect * self.scale_
        if type_number is not None:
            wanted = np.eye(self.n_types_)[number - 1]
        to_raw = through_components(self.compressor_, (pull @ wanted) / self.spread_)
        return pixel_gradient(self.representation_, own, to_raw, owner)

    def _type_number(self, type_number: int | None, owner: str) -> int:
        number = self.n_types_ if type_number is None else type_number
        if not 1 <= number <= self.n_types_:
            raise ParameterError(
                f"{owner} got type_number={type_number!r}; there are {self.n_types_} types."
            )
        return number

    def plot_map(self, images: Any, *, type_number: int | None = None, ax: Any = None) -> Any:
        """Probability of a type on a map.

        Parameters
        ----------
        images : ImageSequence
            Places with ``coords``.
        type_number : int, optional
            Which type, from 1; the one with the largest effect when None.
        ax : matplotlib.axes.Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.

        Raises
        ------
        DataError
            The images have no coordinates.
        ParameterError
            There is no such type.
        """
        from causalfair.imagery._pictures import plot_effect_map

        check_is_fitted(self)
        sequence = as_sequence(images, owner="ImageClusterEffects.plot_map")
        if sequence.coords is None:
            raise DataError("ImageClusterEffects.plot_map needs ImageSequence(coords=...).")
        number = self._type_number(type_number, "ImageClusterEffects.plot_map")
        p = self.predict_proba(sequence)[:, number - 1]
        effect = self.estimates_.estimate[number - 1]
        return plot_effect_map(
            sequence.coords[sequence.image_of_unit], p, ax=ax,
            label=f"probability of type {number} (effect {effect:.2f})",
        )  # fmt: skip

    def _summary_notes(self) -> list[str]:
        notes = ["No image-based types were found: one effect for all places predicts as well."]
        if self.cv_log_likelihood_ is None or self.n_types_ > 1:
            notes = []
        if self.n_types_ > 1:
            notes.append(
                f"Uncertainty of the types given images: {self.uncertainty_:.0%} (0% sure, 100% "
                "blind)."
            )
        if self.sampler == "em":
            how = f"Penalised maximum likelihood; intervals from {self.draws} bootstrap samples."
            return [*notes, how]
        return [*notes, f"Posterior of {self.chains} x {self.draws} draws; {self.convergence_}."]


def build_model(
    phi: FloatArray, y: FloatArray, w: FloatArray, n_types: int, cluster: Any = None
) -> Any:
    """PyMC model with types summed out, on a standardised outcome.

    Parameters
    ----------
    phi : ndarray of shape (n, m)
        Standardised features.
    y, w : ndarray of shape (n,)
        Standardised outcome, treatment.
    n_types : int
        Types.
    cluster : int array of shape (n,), optional
        Cluster codes.

    Returns
    -------
    pymc.Model
        To sample or to extend.
    """
    import pymc as pm
    import pytensor.tensor as pt

    n, m = phi.shape
    K = n_types
    Z = np.column_stack([np.ones(n), phi])
    difference = y[w == 1].mean() - y[w == 0].mean()
    error = np.sqrt(y[w == 1].var() / (w == 1).sum() + y[w == 0].var() / (w == 0).sum())
    spread = np.sqrt((2 * error * np.sqrt(K)) ** 2 + 0.25)
    with pm.Model() as model:
        ordered = {"transform": pm.distributions.transforms.ordered} if K > 1 else {}
        effect = pm.Normal(
            "effect", difference, spread, shape=K,
            initval=difference + 0.5 * np.linspace(-1, 1, K) if K > 1 else None, **ordered,
        )  # fmt: skip
        outcome = pm.Normal("outcome", 0, 1, shape=m + 1)
        noise = pm.LogNormal("noise", 0, 0.5, shape=(2, K))
        mean = pt.dot(Z, outcome)
        if cluster is not None:
            cluster_sd = pm.HalfNormal("cluster_sd", 0.5)
            raw = pm.Normal("cluster_raw", 0, 1, shape=int(cluster.max()) + 1)
            mean = mean + cluster_sd * raw[cluster]
        log_pi = 0.0
        if K > 1:
            logits = pm.Normal("logits", 0, 1, shape=(m + 1, K - 1))
            eta = pt.concatenate([np.zeros((n, 1)), pt.dot(Z, logits)], axis=1)
            log_pi = eta - pt.logsumexp(eta, axis=1, keepdims=True)
        s = noise[w.astype(int)]
        residual = (y[:, None] - mean[:, None] - w[:, None] * effect[None, :]) / s
        density = -0.5 * residual**2 - pt.log(s)
        pm.Potential("outcomes", pt.logsumexp(log_pi + density, axis=1).sum())
    return model
