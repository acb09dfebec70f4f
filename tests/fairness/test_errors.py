"""Every bad input gets a message that names the argument, the value seen and the remedy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalfair.datasets import make_weak_proxies
from causalfair.exceptions import (
    DataError,
    IdentificationError,
    ParameterError,
    RoleError,
    SmallSampleWarning,
    WeakIdentificationWarning,
)
from causalfair.fairness import ProxyFairness, count_tensor
from causalfair.fairness._simulate import _DESIGNS, population_tensor

PROXIES = ["proxy_1", "proxy_2", "proxy_3"]


@pytest.fixture(scope="module")
def frame():
    return make_weak_proxies(6000, random_state=1)[0]


@pytest.fixture(scope="module")
def X(frame):
    return frame[PROXIES].to_numpy()


def fit(X, y_pred, **options):
    roles = {
        k: options.pop(k)
        for k in ("y_true", "proxies", "sample_weight", "cluster", "sensitive_features")
        if k in options
    }
    return ProxyFairness(random_state=0, **options).fit(X, y_pred, **roles)


@pytest.mark.parametrize("columns", [1, 2])
def test_too_few_views(X, frame, columns):
    with pytest.raises(IdentificationError, match=r"Add a proxy.*two_view.*known error rates"):
        fit(X[:, :columns], frame["y_pred"])


def test_two_view_needs_informative_strata():
    N = np.full((2, 1, 2, 2), 50.0)
    N[1] = 0
    with pytest.raises(IdentificationError, match="Add a proxy"):
        ProxyFairness.from_counts(N, model="two_view")


def test_one_proxy_is_not_rescued_by_two_view(X, frame):
    with pytest.raises(IdentificationError, match="1 proxy cannot tell"):
        fit(X[:, :1], frame["y_pred"], model="two_view")


def test_constant_proxy(X, frame):
    bad = X.copy()
    bad[:, 1] = 0
    with pytest.raises(DataError, match=r"'proxy 2' carries no information about 2 groups: .*1 le"):
        fit(bad, frame["y_pred"])


def test_fewer_levels_than_groups(X, frame):
    with pytest.raises(DataError, match="carries no information about 3 groups"):
        fit(X, frame["y_pred"], n_groups=3)


def test_duplicate_proxies(X, frame):
    with pytest.raises(DataError, match=r"'proxy 1' and 'proxy 3' are identical: conditional"):
        fit(np.column_stack([X[:, 0], X[:, 1], X[:, 0]]), frame["y_pred"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: X + 0.5, "not integers"),
        (lambda X: np.where(X == 1, -2, X), "negative value -2"),
        (lambda X: np.where(X == 1, np.nan, X), "missing"),
        (lambda X: X.astype(str), "Code its levels as integers"),
        (lambda X: X[:0], "empty|no rows"),
        (lambda X: X[:10], "lengths differ"),
        (lambda X: X[:, None, None, :], "shape"),
    ],
)
def test_values_that_are_not_levels(X, frame, change, message):
    with pytest.raises(DataError, match=message):
        fit(change(X), frame["y_pred"])


@pytest.mark.parametrize("values", [[0.5] * 6000, [-1] * 6000, ["a"] * 6000])
def test_decisions_that_are_not_levels(X, values):
    with pytest.raises(DataError, match="y_pred"):
        fit(X, np.array(values))


def test_decisions_are_needed(X):
    with pytest.raises(DataError, match="y_pred"):
        fit(X, None)


def test_soft_rows_that_do_not_sum_to_one(frame):
    soft = np.full((6000, 3, 2), 0.5)
    soft[17, 1] = [0.5, 0.6]
    with pytest.raises(DataError, match=r"soft proxy 2 of row 17 .*sum 1\.1"):
        fit(soft, frame["y_pred"])


def test_metric_that_needs_labels(X, frame):
    audit = fit(X, frame["y_pred"])
    for metric in ("equalized_odds", "equal_opportunity", "accuracy_parity"):
        with pytest.raises(ParameterError, match=f"'{metric}' needs y_true"):
            audit.disparity(metric)


def test_known_error_rates(X, frame):
    one = X[:, :1]
    with pytest.raises(ParameterError, match=r"row 1 sums to 1\.1.*condition number"):
        fit(one, frame["y_pred"], model="known", transition=[[[0.8, 0.2], [0.3, 0.8]]])
    with pytest.raises(ParameterError, match=r"singular \(condition number"):
        fit(one, frame["y_pred"], model="known", transition=[[[0.6, 0.4], [0.6, 0.4]]])
    with pytest.raises(ParameterError, match="shape"):
        fit(one, frame["y_pred"], model="known", transition=[np.eye(3)])
    with pytest.raises(ParameterError, match="2 entries, but there are 1 proxies"):
        fit(one, frame["y_pred"], model="known", transition=[np.eye(2), np.eye(2)])
    with pytest.raises(ParameterError, match="negative"):
        fit(one, frame["y_pred"], model="known", transition=[[[1.2, -0.2], [0.3, 0.7]]])
    with pytest.raises(ParameterError, match="needs transition="):
        fit(one, frame["y_pred"], model="known")


@pytest.mark.parametrize("weights", [np.full(6000, -1.0), np.zeros(6000)])
def test_weights(X, frame, weights):
    with pytest.raises(DataError, match="sample_weight"):
        fit(X, frame["y_pred"], sample_weight=weights)


def test_number_of_groups(X, frame):
    with pytest.raises(ParameterError, match="nothing to compare"):
        fit(X, frame["y_pred"], n_groups=1)


@pytest.mark.parametrize(
    ("shares", "message"),
    [([0.5, 0.6], "sums to 1.1"), ([1.0, 0.0], "positive shares"), ([0.2, 0.3, 0.5], "2 positive")],
)
def test_known_shares(X, frame, shares, message):
    with pytest.raises(ParameterError, match=message):
        fit(X, frame["y_pred"], prevalence=shares)


def test_roles_by_name(frame):
    with pytest.raises(RoleError, match=r"name the\s+proxies too.*Remaining columns"):
        fit(frame, "y_pred")
    with pytest.raises(RoleError, match=r"'proxy1'.*Did you mean.*proxy_1"):
        fit(frame, "y_pred", proxies=["proxy1", "proxy_2", "proxy_3"])
    with pytest.raises(RoleError, match="twice"):
        fit(frame, "y_pred", proxies=["proxy_1", "proxy_1", "proxy_3"])
    with pytest.raises(RoleError, match="with an array X"):
        fit(frame[PROXIES].to_numpy(), frame["y_pred"], proxies=PROXIES)
    with pytest.raises(RoleError, match="one role"):
        fit(frame, "proxy_1", proxies=PROXIES)


def test_options(X, frame):
    audit = fit(X, frame["y_pred"], y_true=frame["y_true"])
    with pytest.raises(ParameterError, match=r"equalised_odds.*Did you mean.*equalized_odds"):
        audit.disparity("equalised_odds")
    with pytest.raises(ParameterError, match="kind must be one of"):
        audit.disparity("demographic_parity", kind="gap")
    with pytest.raises(ParameterError, match="interval must be one of"):
        audit.disparity("demographic_parity", interval="wald")
    with pytest.raises(ParameterError, match="no proxy 'nose'"):
        audit.direct("nose")
    with pytest.raises(ParameterError, match="out of range"):
        audit.direct(7)
    with pytest.raises(ParameterError, match=r"must lie in \[0, 1\]"):
        audit.sensitivity(gamma=[2.0])
    with pytest.raises(ParameterError, match="'decision' or 'proxies'"):
        audit.sensitivity("everything")
    with pytest.raises(ParameterError, match="bounds are known for"):
        audit.bounds("calibration")
    with pytest.raises(ParameterError, match="off by default"):
        audit.posterior(X)
    with pytest.raises(ValueError, match="model"):
        ProxyFairness(model="magic").fit(X, frame["y_pred"])


def test_models_that_ignore_anchors_say_so(X, frame):
    with pytest.raises(ParameterError, match="does not use"):
        fit(X, frame["y_pred"], model="local", prevalence=[0.6, 0.4])


def test_labels_not_determined():
    """Three proxies that are mirror images of the truth for half of the people each."""
    _p, H, _ = _DESIGNS["heterogeneous"]
    T = [
        np.array([[0.89, 0.11], [0.2, 0.8]]),
        np.array([[0.45, 0.55], [0.93, 0.07]]),
        np.array([[0.4, 0.6], [0.6, 0.4]]),
    ]
    with pytest.raises(IdentificationError, match="Labels not determined"):
        ProxyFairness.from_counts(
            1e5 * population_tensor(np.array([0.5, 0.5]), H, T), random_state=0
        )


def test_rare_group_is_nan_with_a_reason_never_zero():
    _p, H, _T = _DESIGNS["heterogeneous"]
    sharp = [np.array([[0.97, 0.03], [0.1, 0.9]])] * 2 + [np.array([[0.95, 0.05], [0.2, 0.8]])]
    N = 600 * population_tensor(np.array([0.985, 0.015]), H, sharp)
    with (
        pytest.warns(WeakIdentificationWarning, match="share of the smallest group"),
        pytest.warns(SmallSampleWarning, match="estimated for group 1: rates"),
    ):
        audit = ProxyFairness.from_counts(N, random_state=0)
    assert np.isnan(audit.group_rates_[1]).all()
    assert np.isfinite(audit.group_rates_[0]).all()
    gap = audit.disparity("demographic_parity")
    assert np.isnan(gap.estimate[0])
    assert "fewer than 10" in gap.reasons[0]
    for kind in ("max", "mean"):
        scalar = audit.disparity("demographic_parity", kind=kind)
        assert np.isnan(scalar.estimate[0])
        assert np.isnan(scalar.conf_int()).all()
        assert scalar.reasons[0] is not None
    table = audit.compare().to_frame().set_index("method")
    assert np.isnan(table.loc["global", "estimate"])
    assert "fewer than 10" in table.loc["global", "reason"]


def test_weak_proxies_warn():
    p, H, T = _DESIGNS["heterogeneous"]
    weak = np.array([[0.525, 0.475], [0.475, 0.525]])
    with pytest.warns(WeakIdentificationWarning, match="informativeness 0.050"):
        ProxyFairness.from_counts(1e7 * population_tensor(p, H, [T[0], T[1], weak]), random_state=0)


def test_boundary_warns_and_points_to_other_intervals():
    p, H, T = _DESIGNS["heterogeneous"]
    edge = np.array([[1.0, 0.0], [0.3, 0.7]])
    with pytest.warns(WeakIdentificationWarning, match="boundary.*bootstrap"):
        ProxyFairness.from_counts(1e4 * population_tensor(p, H, [edge, T[1], T[2]]), random_state=0)


def test_shares_of_another_population_warn():
    p, H, T = _DESIGNS["heterogeneous"]
    N = 1e5 * population_tensor(p, H, T)
    with pytest.warns(WeakIdentificationWarning, match=r"supplied group shares \[0.5, 0.5\]"):
        ProxyFairness.from_counts(N, prevalence=[0.5, 0.5], random_state=0)


def test_two_proxies_and_no_disparity_warn():
    p, H, T = _DESIGNS["heterogeneous"]
    N = 1e5 * population_tensor(p, np.tile(H[0], (2, 1)), T[:2])
    with pytest.warns(WeakIdentificationWarning, match="leave the likelihood unchanged"):
        ProxyFairness.from_counts(N, model="two_view", random_state=0)


def test_thin_strata_warn_in_the_local_model():
    p, H, T = _DESIGNS["identical"]
    with pytest.warns(SmallSampleWarning, match="fewer than 500 rows"):
        ProxyFairness.from_counts(2500 * population_tensor(p, H, T), model="local", random_state=0)


@pytest.mark.parametrize(
    ("N", "message"),
    [
        (np.ones((2, 2)), "shape"),
        (-np.ones((2, 1, 2, 2, 2)), "non-negative"),
        (np.zeros((2, 1, 2, 2, 2)), "all zero"),
        (np.full((2, 1, 2, 2, 2), np.nan), "finite"),
    ],
)
def test_counts(N, message):
    with pytest.raises(DataError, match=message):
        ProxyFairness.from_counts(N)


def test_count_tensor_arguments(X, frame):
    with pytest.raises(ParameterError, match="n_levels"):
        count_tensor(X, frame["y_pred"], n_levels=1)
    with pytest.raises(ParameterError, match="n_pred=1"):
        count_tensor(X, frame["y_pred"], n_pred=1)
    with pytest.raises(DataError, match="too wide"):
        count_tensor(X, frame["y_pred"], n_levels=[300, 300, 300])
    with pytest.raises(DataError, match="sample_weight"):
        count_tensor(X, frame["y_pred"], sample_weight=np.full(6000, -1.0))


def test_factors_belong_together(X, frame):
    with pytest.raises(ParameterError, match="belong together"):
        fit(X, frame["y_pred"], n_groups=4, factors=(2, 2))
    with pytest.raises(ParameterError, match="product"):
        fit(X, frame["y_pred"], n_groups=3, factors=(2, 2), proxy_factor=(0, 0, 1))
    with pytest.raises(IdentificationError, match="factor 1 has 1 proxies"):
        fit(X, frame["y_pred"], n_groups=4, factors=(2, 2), proxy_factor=(0, 0, 1))


def test_pandas_nullable_integers_and_booleans_are_levels(frame):
    nullable = pd.DataFrame({c: frame[c].astype("Int64") for c in PROXIES})
    plain = fit(frame[PROXIES], frame["y_pred"])
    assert fit(nullable, frame["y_pred"] == 1).loglik_ == plain.loglik_
