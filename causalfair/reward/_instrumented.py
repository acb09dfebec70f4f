"""Rewards where a circumstance is itself confounded, or is not recorded but has two proxies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import chdtrc, chdtri

from causalfair._core.compat import fit_context
from causalfair._core.frames import as_table
from causalfair._core.logging import warn
from causalfair._core.random import root_seed
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import check_level, check_numeric
from causalfair.exceptions import (
    IdentificationError,
    ParameterError,
    RoleError,
    WeakIdentificationWarning,
)
from causalfair.reward._data import resolve_reward
from causalfair.reward._estimator import DeconfoundedReward
from causalfair.reward._methods import Problem
from causalfair.reward._ridge import Sandwich

__all__ = ["InstrumentedReward", "ProximalReward", "two_stage"]

WEAK_F = 10.0


@dataclass(frozen=True)
class TwoStage:
    """Two-stage least squares on residualised columns.

    Attributes
    ----------
    beta : (d,); gamma : (p,) effects of text and of the endogenous circumstances.
    influence : (n, d + p); gram_inverse : (d, d) block of the text.
    effective_f : first-stage strength; anderson_rubin inverts the robust test.
    """

    beta: FloatArray
    gamma: FloatArray
    influence: FloatArray
    effective_f: float
    hansen: Any
    wu_hausman: Any
    parts: tuple[FloatArray, FloatArray, FloatArray]


def _meat(scores: FloatArray, cluster: IntArray | None) -> FloatArray:
    """Covariance (k, k) of the sum of scores over ``sqrt(n)``."""
    from causalfair.inference.vcov import clustered_vcov

    centred = scores - scores.mean(axis=0)
    if cluster is None:
        return np.asarray(centred.T @ centred / len(scores))
    return clustered_vcov(centred, cluster) * len(scores)


def two_stage(
    X: FloatArray,
    P: FloatArray,
    Z: FloatArray,
    y: FloatArray,
    weight: FloatArray,
    cluster: IntArray | None = None,
) -> TwoStage:
    """Two-stage least squares of ``y`` on text ``X`` and endogenous ``P`` with instruments ``Z``.

    All columns are residualised on the confounders before.

    Raises
    ------
    IdentificationError
        Fewer instruments than endogenous columns, or instruments that say nothing about them.
    """
    from causalfair.inference import HypothesisTest

    root = np.sqrt(weight)[:, None]
    X, P, Z, y = X * root, P * root, Z * root, y * root[:, 0]
    n, p, k = len(y), P.shape[1], Z.shape[1]
    basis = _orthonormal(X)
    out = [a - basis @ (basis.T @ a) for a in (P, Z, y)]
    RP, RZ, Ry = out
    Q = _orthonormal(RZ) * np.sqrt(n)
    if Q.shape[1] < p:
        raise IdentificationError(
            f"{p} endogenous confounder(s) and {Q.shape[1]} independent instrument(s): there must "
            "be at least as many instruments as endogenous confounders."
        )
    fitted = Q @ (Q.T @ RP) / n
    moments = fitted.T @ RP / n
    if (
        np.linalg.matrix_rank(moments, tol=1e-12 * max(float(np.abs(RP.T @ RP / n).max()), 1e-300))
        < p
    ):
        raise IdentificationError("the instruments do not move the endogenous confounders at all.")
    gamma = np.linalg.solve(moments, fitted.T @ Ry / n)
    corrected = y - P @ gamma
    beta = np.asarray(np.linalg.lstsq(X, corrected, rcond=None)[0], dtype=np.float64)
    error = corrected - X @ beta
    P_hat = P - (RP - fitted)  # first stage on text and instruments
    W = np.hstack([X, P_hat])
    inverse = np.linalg.pinv(W.T @ W / n, hermitian=True)
    influence = (W * error[:, None]) @ inverse
    first = _meat(Q * (RP - fitted)[:, :1], cluster)
    strength = n * float(((Q.T @ RP[:, 0] / n) ** 2).sum() / np.trace(first))
    scores = Q * error[:, None]
    hansen = None
    if k > p:
        omega = np.linalg.pinv(_meat(scores, cluster), hermitian=True)
        a, b = Q.T @ RP / n, Q.T @ Ry / n
        best = np.linalg.solve(a.T @ omega @ a, a.T @ omega @ b)
        value = float(n * (b - a @ best) @ omega @ (b - a @ best))
        hansen = HypothesisTest(
            "Hansen J", "all instruments are valid", value, float(chdtrc(k - p, value)), k - p
        )
    wu = _wu_hausman(RP, RP - fitted, Ry, cluster)
    return TwoStage(np.asarray(beta), gamma, influence, strength, hansen, wu, (Q, RP, Ry))


def _orthonormal(A: FloatArray) -> FloatArray:
    scale = np.sqrt((A**2).sum(axis=0))
    left, values, _ = np.linalg.svd(A / np.where(scale > 0, scale, 1.0), full_matrices=False)
    return np.asarray(left[:, values > 1e-9 * max(float(values.max(initial=0.0)), 1e-300)])


def _wu_hausman(RP: FloatArray, residual: FloatArray, Ry: FloatArray, cluster: Any) -> Any:
    """Add the first-stage residuals to least squares: their coefficients are zero without bias."""
    from causalfair.inference import HypothesisTest

    n, p = RP.shape
    W = np.hstack([RP, residual])
    inverse = np.linalg.pinv(W.T @ W / n, hermitian=True)
    coef = inverse @ (W.T @ Ry / n)
    vcov = inverse @ _meat(W * (Ry - W @ coef)[:, None], cluster) @ inverse / n
    gap = coef[p:]
    value = float(gap @ np.linalg.pinv(vcov[p:, p:], hermitian=True) @ gap)
    return HypothesisTest(
        "Wu-Hausman", "the circumstance is not confounded", value, float(chdtrc(p, value)), p
    )


def anderson_rubin(fit: TwoStage, level: float, cluster: Any) -> list[tuple[float, float]]:
    """Set of values of one endogenous effect that the robust test does not reject."""
    Q, RP, Ry = fit.parts
    n, k = Q.shape
    critical = float(chdtri(k, 1 - level))
    scores_y, scores_p = Q * Ry[:, None], Q * RP[:, :1]
    mean_y, mean_p = scores_y.mean(axis=0), scores_p.mean(axis=0)
    joint = _meat(np.hstack([scores_y, scores_p]), cluster)
    yy, yp, pp = joint[:k, :k], joint[:k, k:], joint[k:, k:]
    spread = float(np.sqrt(np.trace(pp) / n / max(float(mean_p @ mean_p), 1e-300)))
    scale = max(1.0, abs(float(fit.gamma[0]))) * max(spread, 0.05)
    steps = np.sinh(np.linspace(-9, 9, 4001)) * scale / 20
    grid = fit.gamma[0] + steps
    kept = np.empty(len(grid), dtype=bool)
    for i, value in enumerate(grid):
        gap = mean_y - value * mean_p
        omega = yy - value * (yp + yp.T) + value**2 * pp
        kept[i] = n * float(gap @ np.linalg.pinv(omega, hermitian=True) @ gap) <= critical
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(int)))
    out = []
    for start, stop in edges.reshape(-1, 2):
        low = -np.inf if start == 0 else float(grid[start])
        high = np.inf if stop == len(grid) else float(grid[stop - 1])
        out.append((low, high))
    return out


class InstrumentedReward(DeconfoundedReward):
    """Reward where a recorded circumstance is itself confounded, and an instrument moves it.

    Popularity, for instance, moves clicks and shares unseen causes with them: its observed
    association with the outcome is not its effect. An instrument that moves the outcome only
    through the circumstance identifies that effect, which is then taken off the outcome.

    Parameters
    ----------
    learner, method, features, penalty, n_folds, n_repeats, numeric_basis, outcome, trust, \
n_refits, post_treatment, solver, random_state : object
        As for :class:`DeconfoundedReward`; the learner is ``"ridge"``.

    Attributes
    ----------
    endogenous_effect_ : numpy.ndarray of shape (p,)
        Effect of each endogenous circumstance.
    effective_f_ : float
        Olea-Pflueger effective first-stage F of the first one.
    hansen_, wu_hausman_ : causalfair.inference.HypothesisTest or None
        Over-identification (None when just identified) and exogeneity.

    References
    ----------
    .. [1] J. L. Montiel Olea and C. Pflueger (2013). A robust test for weak instruments. Journal of
       Business & Economic Statistics 31, 358-369. doi:10.1080/00401706.2013.806694
    .. [2] E. Loghmani (2025). Aligning language models with observational data. arXiv:2506.00152

    Examples
    --------
    >>> from causalfair.datasets import make_popularity_iv
    >>> logs, truth = make_popularity_iv(4000, random_state=0)
    >>> reward = InstrumentedReward(penalty=0.0).fit(
    ...     logs, "y", embedding=["x"], endogenous=["popularity"], instruments=["slot"])
    >>> bool(abs(reward.endogenous_effect_[0] - truth["gamma"]) < 0.15)
    True
    """

    _title: ClassVar[str] = "Reward with an instrumented circumstance"
    _assumptions: ClassVar[tuple[str, ...]] = (
        "the instruments move the outcome only through the endogenous circumstance",
        "no unrecorded cause of both text choice and outcome, but for that circumstance",
        "effects of text and circumstances add up",
    )
    _citations: ClassVar[tuple[str, ...]] = ("loghmani2025aligning", "oleapflueger2013robust")
    _words: ClassVar[tuple[str, str]] = ("endogenous", "instruments")

    @fit_context
    def fit(  # type: ignore[override]
        self,
        X: Any,
        y: Any,
        *,
        endogenous: Any,
        instruments: Any,
        text: Any = None,
        embedding: Any = None,
        categorical: Any = None,
        numeric: Any = None,
        time: Any = None,
        cluster: Any = None,
        sample_weight: Any = None,
    ) -> Any:
        """Learn the reward.

        Parameters
        ----------
        X, y : table and outcome
            As for :meth:`DeconfoundedReward.fit`.
        endogenous : list of str, mapping or arrays
            Circumstances that are confounded themselves.
        instruments : list of str, mapping or arrays
            At least as many columns that move the outcome only through them.
        text, embedding, categorical, numeric, time, cluster, sample_weight : names or arrays
            As for :meth:`DeconfoundedReward.fit`.

        Returns
        -------
        InstrumentedReward
            Itself.
        """
        return self._fit_instrumented(
            X, y, endogenous, instruments, text=text, embedding=embedding,
            categorical=categorical, numeric=numeric, time=time, cluster=cluster,
            sample_weight=sample_weight,
        )  # fmt: skip

    def _fit_instrumented(
        self, X: Any, y: Any, endogenous: Any, instruments: Any, **roles: Any
    ) -> Any:
        from causalfair.reward import _assemble

        owner = f"{type(self).__name__}.fit"
        if self.learner != "ridge":
            raise ParameterError(
                f'{owner}: two-stage least squares is linear and needs learner="ridge"; got '
                f"learner={self.learner!r}."
            )
        root = root_seed(self.random_state)
        left, right = self._words
        moved = _columns(X, endogenous, left, owner)
        movers = _columns(X, instruments, right, owner)
        _check_roles(moved, movers, roles, self._words, owner)
        data = resolve_reward(X, y, owner=owner, post_treatment=self.post_treatment, **roles)
        problem = _assemble.make_problem(self, data, root, owner)
        P = problem.confounders.residualize(np.column_stack(list(moved.values())))
        Z = problem.confounders.residualize(np.column_stack(list(movers.values())))
        fit = two_stage(problem.within, P, Z, problem.y_within, problem.weight, problem.cluster)
        self._two_stage, self._data, self._problem, self._root = fit, data, problem, root
        self.endogenous_effect_, self.effective_f_ = fit.gamma, fit.effective_f
        self.hansen_, self.wu_hausman_ = fit.hansen, fit.wu_hausman
        self.mean_, self.reference_outcome_ = problem.mean, problem.y_mean
        taken = np.column_stack(list(moved.values())) @ fit.gamma
        problem.y = problem.y - (taken - taken.mean())
        for stale in ("y", "parts", "gram"):
            problem._cache.pop(stale, None)
        self._fit_learner(problem)
        self._describe(data, problem)
        self._joint_inference(fit, problem, tuple(moved), data.roles.sample_id())
        self._warn_weak(owner)
        self._finish(data.roles, seed=root)
        return self

    def _joint_inference(
        self, fit: TwoStage, problem: Problem, endogenous: tuple[str, ...], sample_id: str
    ) -> None:
        """Standard errors that know the circumstance's effect was estimated."""
        from causalfair.inference import InfluenceEstimates
        from causalfair.inference.vcov import clustered_vcov, iid_vcov

        d = problem.X.shape[1]
        named = [j for j in range(d) if problem.blocks[j] != "text"]
        shown = [*named, *range(d, d + len(endogenous))]
        psi = fit.influence - fit.influence.mean(axis=0)
        self.estimates_ = InfluenceEstimates(
            np.concatenate([fit.beta, fit.gamma])[shown], psi[:, shown],
            [*(problem.names[j] for j in named), *endogenous],
            cluster=problem.cluster, sample_id=sample_id,
        )  # fmt: skip
        text = psi[:, :d]
        vcov = iid_vcov(text) if problem.cluster is None else clustered_vcov(text, problem.cluster)
        old = self._inference
        self._inference = Sandwich(fit.beta, vcov, old.inverse, 1.0, old.rank, old.basis, old.root)

    def _influence(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        d = rows.shape[1]
        return rows @ self._two_stage.beta, self._two_stage.influence[:, :d] @ rows.T

    def _warn_weak(self, owner: str) -> None:
        if self.effective_f_ < WEAK_F and len(self.endogenous_effect_) == 1:
            shown = " or ".join(f"[{a:.3g}, {b:.3g}]" for a, b in self.robust_set()) or "empty"
            warn(
                f"{owner}: the {self._words[1]} are weak (effective F {self.effective_f_:.1f}, "
                f"below {WEAK_F:g}): estimates and standard errors mislead. The 95% "
                f"Anderson-Rubin set of the {self._words[0]} effect is {shown}.",
                WeakIdentificationWarning,
            )

    def robust_set(self, level: float = 0.95) -> list[tuple[float, float]]:
        """Anderson-Rubin set of the endogenous effect, valid however weak the instruments.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.

        Returns
        -------
        list of (float, float)
            Intervals that make up the set; it may be unbounded, in pieces or empty.

        Raises
        ------
        IdentificationError
            More than one endogenous circumstance.
        """
        check_level(level)
        if len(self.endogenous_effect_) != 1:
            raise IdentificationError(
                f"robust_set is for one endogenous circumstance; there are "
                f"{len(self.endogenous_effect_)}."
            )
        _, problem = self._training("robust_set")
        return anderson_rubin(self._two_stage, level, problem.cluster)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_two_stage", None)
        return state

    def _summary_tables(self) -> list[Any]:
        from causalfair.reporting import Table
        from causalfair.reporting.format import format_p

        rows = [["effective first-stage F", f"{self.effective_f_:.1f}"]]
        for test in (self.hansen_, self.wu_hausman_):
            if test is not None:
                rows.append([f"{test.name}: {test.null}", f"p {format_p(test.p_value)}"])
        return [*super()._summary_tables(), Table(["instruments", ""], rows, align="lr")]


class ProximalReward(InstrumentedReward):
    """Reward with an unrecorded confounder that has a proxy on either side.

    The outcome-side proxy is moved by the unseen cause but not by the text; the text-side proxy is
    related to the unseen cause but does not move the outcome given it. Linear proximal two-stage
    least squares regresses the outcome on text and outcome-side proxy, with text and text-side
    proxy as instruments.

    Parameters
    ----------
    learner, method, features, penalty, n_folds, n_repeats, numeric_basis, outcome, trust, \
n_refits, post_treatment, solver, random_state : object
        As for :class:`DeconfoundedReward`; the learner is ``"ridge"``.

    References
    ----------
    .. [1] E. J. Tchetgen Tchetgen et al. (2024). An introduction to proximal causal inference.
       Statistical Science 39, 375-390. arXiv:2009.10982

    Examples
    --------
    >>> from causalfair.datasets import make_proximal_reward
    >>> logs, truth = make_proximal_reward(4000, random_state=0)
    >>> reward = ProximalReward(penalty=0.0).fit(
    ...     logs, "y", embedding=["x"], outcome_proxy="outcome_proxy", text_proxy="text_proxy")
    >>> bool(abs(reward.coef_[0] - truth["beta"]) < 0.2)
    True
    """

    _title: ClassVar[str] = "Reward with proxies of an unrecorded confounder"
    _assumptions: ClassVar[tuple[str, ...]] = (
        "the text does not move the outcome-side proxy",
        "the text-side proxy does not move the outcome given the unrecorded confounder",
        "the proxies are related given text and confounders",
        "linear effects",
    )
    _citations: ClassVar[tuple[str, ...]] = ("tchetgen2024proximal",)
    _words: ClassVar[tuple[str, str]] = ("outcome_proxy", "text_proxy")

    @fit_context
    def fit(  # type: ignore[override]
        self,
        X: Any,
        y: Any,
        *,
        outcome_proxy: Any,
        text_proxy: Any,
        text: Any = None,
        embedding: Any = None,
        categorical: Any = None,
        numeric: Any = None,
        time: Any = None,
        cluster: Any = None,
        sample_weight: Any = None,
    ) -> Any:
        """Learn the reward.

        Parameters
        ----------
        X, y : table and outcome
            As for :meth:`DeconfoundedReward.fit`.
        outcome_proxy, text_proxy : str, list of str, mapping or arrays
            The two sides' proxies; at least as many on the text's side.
        text, embedding, categorical, numeric, time, cluster, sample_weight : names or arrays
            As for :meth:`DeconfoundedReward.fit`.

        Returns
        -------
        ProximalReward
            Itself.
        """
        return self._fit_instrumented(
            X, y, outcome_proxy, text_proxy, text=text, embedding=embedding,
            categorical=categorical, numeric=numeric, time=time, cluster=cluster,
            sample_weight=sample_weight,
        )  # fmt: skip


def _columns(X: Any, value: Any, role: str, owner: str) -> dict[str, FloatArray]:
    from causalfair.reward._data import _confounders

    table = as_table(X, owner=owner)
    named = _confounders(table, value, role, owner)
    if not named:
        raise RoleError(f"{owner}: {role}= is required; name at least one column.")
    return {k: check_numeric(v, f"{role} {k!r}", owner=owner) for k, v in named.items()}


def _check_roles(
    moved: dict[str, Any], movers: dict[str, Any], roles: Any, words: tuple[str, str], owner: str
) -> None:
    held = set()
    for kind in ("categorical", "numeric", "time"):
        given = roles.get(kind)
        given = [given] if isinstance(given, str) else given
        if isinstance(given, (list, tuple, dict)):
            held |= {name for name in given if isinstance(name, str)}
    for name in movers:
        if name in held:
            raise RoleError(
                f"{owner}: {name!r} is given in {words[1]} and as a confounder. Held fixed, it "
                "cannot move anything; take it out of one of the two."
            )
        if name in moved:
            raise RoleError(f"{owner}: {name!r} is given in {words[0]} and in {words[1]}.")
    if len(movers) < len(moved):
        raise IdentificationError(
            f"{owner}: {len(moved)} columns in {words[0]} and {len(movers)} in {words[1]}; there "
            "must be at least as many of the latter."
        )
