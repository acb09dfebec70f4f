"""The reusable holdout from outside: questions, statistics, bad input, what never leaves it."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
from naive import adaptive as naive
from sklearn.linear_model import LinearRegression, LogisticRegression

from causalfair.adaptive import Answer, Conjunction, ReusableHoldout, bounds
from causalfair.adaptive import _theorem as theorem
from causalfair.adaptive._metrics import METRICS, auc
from causalfair.adaptive._queries import UNITS, to_units
from causalfair.exceptions import (
    BudgetExhaustedError,
    CausalFairWarning,
    DataError,
    ParameterError,
    UncertifiedWarning,
    VacuousGuaranteeError,
)


def create(data, **kwargs):
    return ReusableHoldout.create(
        None, *data, **({"mechanism": "gaussian", "max_queries": 100} | kwargs)
    )


def exact(data, **kwargs):
    """Holdout that answers with empirical values, to see what is computed."""
    return create(data, **({"mechanism": "naive", "nonadaptive": True} | kwargs))


def positive(X, y):
    return X[:, 0] > 0


# -------------------------------------------------------------------------------------- questions
def test_answer_fields(gaussian):
    answer = gaussian.ask(positive)
    assert isinstance(answer, Answer)
    assert answer.lower <= answer.value <= answer.upper
    assert answer.radius == pytest.approx(bounds.width(4_000, 100).radius, abs=1e-4)
    assert (answer.method, answer.certified) == ("gaussian", True)
    assert (answer.query_index, answer.spent, answer.remaining) == (1, 1, 99)
    assert float(answer) == answer.value
    assert "certified; 99 left" in str(answer)


def test_default_is_guess_and_check_with_its_own_guesses(data):
    holdout = ReusableHoldout.create(None, *data)
    answer = holdout.ask(positive)
    assert holdout.mechanism == "guess_and_check"
    assert answer.status == "guess"
    assert abs(answer.value - 0.5) < answer.radius


def test_training_data_make_guesses_and_free_the_whole_holdout(data, training):
    holdout = create(data, mechanism="guess_and_check", train=training)
    answer = holdout.ask(positive)
    assert answer.value == np.mean(training[0][:, 0] > 0)
    assert holdout._parts.session.mechanism.plan.n == 4_000
    assert holdout.ask(positive, guess=0.51).value == 0.51


def test_arrays_callables_and_matrices_agree(data):
    X, _ = data
    holdout = exact(data)
    columns = X > 0
    by_call = [holdout.ask(lambda X, y, j=j: X[:, j] > 0).value for j in range(4)]
    by_array = [holdout.ask(columns[:, j]).value for j in range(4)]
    by_list = [a.value for a in holdout.ask_many([columns[:, j] for j in range(4)])]
    by_matrix = [a.value for a in holdout.ask_many(columns)]
    assert by_call == by_array == by_list == by_matrix == list(columns.mean(axis=0))


def test_queries_without_outcomes(data):
    holdout = ReusableHoldout.create(None, data[0], mechanism="gaussian", max_queries=10)
    assert holdout.ask(lambda X: X[:, 0] > 0).query_index == 1


def test_ranges_clip_and_missing_values_become_lo(data):
    holdout = exact(data)
    values = np.full(4_000, 7.0)
    values[:1_000] = np.nan
    values[1_000:2_000] = np.inf
    values[2_000:3_000] = -9
    assert holdout.ask(values, lo=-1, hi=3).value == pytest.approx((-1 * 3 + 3) / 4)


def test_sums_are_exact_in_any_order(data):
    rng = np.random.default_rng(0)
    values = rng.normal(size=100_000)
    units = to_units(values, -3, 3)
    assert units.sum() == units[rng.permutation(100_000)].sum() == int(units.sum())
    assert units.max() <= UNITS
    assert np.abs(units * 6 / UNITS - 3 - np.clip(values, -3, 3)).max() <= 6 / UNITS / 2 + 1e-12


def test_one_record_moves_the_sum_by_at_most_its_influence():
    a = np.random.default_rng(1).random(50)
    b = a.copy()
    b[7] = 1e9
    assert abs(to_units(a, 0, 1).sum() - to_units(b, 0, 1).sum()) <= UNITS


# ------------------------------------------------------------------------------------- statistics
@pytest.fixture
def model(training):
    return LogisticRegression().fit(*training)


class FirstFour:
    """A model of the first four columns, on rows with more."""

    def __init__(self, model):
        self.model, self.classes_ = model, model.classes_

    def predict(self, X):
        return self.model.predict(np.asarray(X)[:, :4])

    def predict_proba(self, X):
        return self.model.predict_proba(np.asarray(X)[:, :4])


def test_metrics_against_scikit_learn(data, model):
    from sklearn import metrics

    X, y = data
    group = (X[:, 1] > 0).astype(int)
    frame = pd.DataFrame(X, columns=list("abcd"))
    holdout = exact((frame.assign(g=group), y), max_queries=1_000)

    p, proba = model.predict(X), model.predict_proba(X)[:, 1]
    expected = {
        "accuracy": metrics.accuracy_score(y, p),
        "error": 1 - metrics.accuracy_score(y, p),
        "brier": metrics.brier_score_loss(y, proba),
        "auc": metrics.roc_auc_score(y, proba),
        "tpr": metrics.recall_score(y, p),
        "fpr": np.mean(p[y == 0]),
        "selection_rate": p.mean(),
    }
    for name, value in expected.items():
        assert holdout.score(FirstFour(model), name, query_id=name).value == pytest.approx(
            value, abs=1e-6
        )
    loss = holdout.score(FirstFour(model), "log_loss", hi=20).value
    assert loss == pytest.approx(metrics.log_loss(y, proba), abs=1e-4)
    gaps = {"accuracy_gap": p == y, "selection_rate_gap": p == 1}
    for name, hit in gaps.items():
        value = holdout.score(FirstFour(model), name, sensitive_features="g").value
        assert value == pytest.approx(hit[group == 0].mean() - hit[group == 1].mean())
    value = holdout.score(FirstFour(model), "tpr_gap", sensitive_features="g", levels=(1, 0)).value
    rate = [np.mean(p[(y == 1) & (group == g)]) for g in (0, 1)]
    assert value == pytest.approx(rate[1] - rate[0])


def test_regression_metrics(data):
    X, _ = data
    holdout = exact((X, X[:, 0]))
    line = LinearRegression().fit(X, X[:, 0] + 0.1)
    error = X[:, 0] - line.predict(X)
    assert holdout.score(line, "mse", hi=4).value == pytest.approx(np.mean(error**2), abs=1e-5)
    assert holdout.score(line, "mae", hi=4).value == pytest.approx(np.mean(np.abs(error)), abs=1e-5)


def test_ratios_hold_when_both_parts_do(data, model):
    X, y = data
    predicted = model.predict(X) == 1
    holdout = create(data)
    hits = holdout.ask(predicted & (y == 1))
    calls = holdout.ask(predicted)
    precision = hits.ratio(calls)
    truth = np.mean(y[predicted] == 1)
    assert precision.lower <= truth <= precision.upper
    assert precision.upper == pytest.approx(hits.upper / calls.lower)
    assert (precision.certified, precision.status) == (True, "ratio")
    nothing = holdout.ask(np.zeros(4_000, dtype=bool))
    assert hits.ratio(nothing).upper == math.inf
    signed = holdout.ask(X[:, 0], lo=-1, hi=1)
    with pytest.raises(ParameterError, match="that are not negative"):
        signed.ratio(calls)


def test_rank_auc_counts_pairs():
    rng = np.random.default_rng(0)
    for _ in range(20):
        y = np.append(rng.random(30) < 0.4, [True, False])
        score = rng.integers(0, 6, 32).astype(float)
        assert auc(y, score) == pytest.approx(naive.auc(y, score))


def test_influences_bound_the_change_of_one_record(data, model):
    X, y = (a[:200] for a in data)
    rng = np.random.default_rng(0)
    group = (X[:, 1] > 0).astype(int)
    score = rng.random(200)
    extra = {"positive": 1, "limit": 5.0, "sensitive": group, "levels": (0, 1)}
    for name, metric in METRICS.items():
        values = score if metric.prediction != "label" else (score > 0.5).astype(int)
        base = metric.compute(y, values, **extra)
        for i in range(0, 200, 7):  # class and group counts are fixed: only the prediction moves
            moved = values.copy()
            moved[i] = 1 - moved[i] if metric.prediction == "label" else rng.random() * 3 - 1
            if metric.prediction == "probability":
                moved[i] = np.clip(moved[i], 0, 1)
            other = metric.compute(y, moved, **extra)
            assert abs(other.value - base.value) <= base.influence[i] + 1e-12, name


def test_radius_of_unbalanced_statistics(data, model):
    _, y = data
    holdout = create(data)
    n1 = int(y.sum())
    smallest = min(n1, 4_000 - n1)
    answer = holdout.score(model, "auc")
    assert answer.radius == pytest.approx(4_000 / smallest * holdout.radius, rel=1e-3)
    declared = create(data, statistic="auc")
    profile = ((1 / n1, n1), (1 / (4_000 - n1), 4_000 - n1))
    assert declared.radius == pytest.approx(theorem.gaussian_optimal(profile, 100, 0.05).radius)
    assert declared.score(model, "auc").radius == pytest.approx(declared.radius, abs=1e-4)
    # a plain mean has smaller influences than an AUC on every record
    plain = declared.ask(positive).radius
    assert plain == pytest.approx(max(n1, 4_000 - n1) / 4_000 * declared.radius, abs=1e-4)


@pytest.mark.parametrize("name", ["tpr", "tpr_gap", "selection_rate_gap"])
def test_declared_rates_sum_the_gaps_of_their_groups(data, model, name):
    X, y = data
    group = (X[:, 1] > 1).astype(float)  # one in six
    wide = np.column_stack([X, group])
    options = {} if name == "tpr" else {"sensitive_features": 4}
    declared = create((wide, y), statistic=name, **options)
    counted = y == 1 if name.startswith("tpr") else np.ones(4_000, dtype=bool)
    members = [counted] if name == "tpr" else [counted & (group == g) for g in (0, 1)]
    profile = tuple((1 / int(m.sum()), int(m.sum())) for m in members)
    best = theorem.gaussian_optimal(tuple(sorted(profile)), 100, 0.05)
    assert declared.radius == pytest.approx(best.radius)
    answer = declared.score(FirstFour(model), name, **options)
    assert answer.radius == pytest.approx(declared.radius, abs=1e-4)
    assert answer.radius < 0.9 * create((wide, y)).score(FirstFour(model), name, **options).radius
    if name.startswith("tpr"):
        with pytest.raises(ParameterError, match="which depends on other records"):
            declared.ask(positive)


def test_a_declared_statistic_survives_the_ledger(data, model, tmp_path):
    X, y = data
    wide = np.column_stack([X, X[:, 1] > 0])
    kwargs = {"statistic": "tpr_gap", "sensitive_features": np.int64(4), "levels": (1.0, 0.0)}
    path = tmp_path / "a.ledger"
    first = ReusableHoldout.create(
        path, wide, y, mechanism="gaussian", max_queries=20, **kwargs
    ).radius
    assert ReusableHoldout.open(path).radius == first


def test_options_of_a_metric_are_part_of_the_question(data, model):
    X, y = data
    group = np.column_stack([X, X[:, 1] > 0, X[:, 2] > 0])
    holdout = exact((group, y))

    gaps = [
        holdout.score(FirstFour(model), "selection_rate_gap", sensitive_features=column).value
        for column in (4, 5)
    ]
    predicted = model.predict(X)
    for column, gap in zip((1, 2), gaps, strict=True):
        inside = X[:, column] > 0
        assert gap == pytest.approx(predicted[~inside].mean() - predicted[inside].mean())
    assert holdout.remaining == 98
    holdout.score(FirstFour(model), "selection_rate_gap", sensitive_features=4)
    assert holdout.remaining == 98


def test_given_guesses_stay_as_they_are(data):
    holdout = ReusableHoldout.create(None, *data)  # half of the rows make guesses, with noise
    assert holdout.ask(positive, guess=0.49).value == 0.49
    mixed = holdout.ask_many([positive, positive], guesses=[0.5, 0.51])
    assert [answer.value for answer in mixed] == [0.5, 0.51]


def test_weights_and_groups_change_the_record(data):
    X, _ = data
    weights = np.random.default_rng(0).uniform(0.5, 2, 4_000)
    groups = np.repeat(np.arange(1_000), 4)
    weighted = exact(data, sample_weight=weights)
    assert weighted.ask(positive).value == pytest.approx(
        np.average(X[:, 0] > 0, weights=weights), abs=1e-9
    )
    grouped = create(data, groups=groups)
    assert grouped.n_records == 1_000
    assert grouped.ask(positive).radius == pytest.approx(bounds.width(1_000, 100).radius, abs=1e-3)
    both = create(data, groups=groups, sample_weight=weights)
    share = np.bincount(groups, weights=weights / weights.sum())
    exact_radius = theorem.gaussian_optimal(tuple((float(c), 1) for c in np.sort(share)), 100, 0.05)
    assert both.radius == pytest.approx(exact_radius.radius)
    assert both.ask(positive).radius == pytest.approx(both.radius, abs=1e-4)
    assert both.ask(positive, lo=-1, hi=3).radius == pytest.approx(4 * both.radius, abs=4e-4)
    assert both.ask_many(X > 0)[2].radius == pytest.approx(both.radius, abs=1e-4)


def test_groups_stay_together_in_blocks(data):
    groups = np.random.default_rng(0).integers(0, 300, 4_000)
    holdout = create(data, mechanism="split_rounds", rounds=3, max_queries=3, groups=groups)
    blocks = [v for k, v in holdout._parts.blocks.parts.items() if k.startswith("block")]
    assert sorted(np.concatenate(blocks)) == list(range(4_000))
    seen = [set(holdout._parts.blocks.sealed.groups[b]) for b in blocks]
    assert not (seen[0] & seen[1]) | (seen[0] & seen[2]) | (seen[1] & seen[2])
    assert max(map(len, seen)) - min(map(len, seen)) <= 1


@pytest.mark.parametrize("backend", ["numpy", "pandas", "polars", "pyarrow"])
def test_frames(data, backend):
    X, y = data
    frame = {
        "numpy": X,
        "pandas": pd.DataFrame(X, columns=list("abcd")),
        "polars": pl.DataFrame(X, schema=list("abcd")),
        "pyarrow": pl.DataFrame(X, schema=list("abcd")).to_arrow(),  # questions see pandas
    }[backend]
    holdout = exact((frame, y))
    column = (
        (lambda X, y: X[:, 0] > 0) if backend == "numpy" else (lambda X, y: X["a"].to_numpy() > 0)
    )
    assert holdout.ask(column).value == np.mean(X[:, 0] > 0)


def test_lazy_frames_are_refused(data):
    with pytest.raises(DataError, match="call .collect"):
        create((pl.DataFrame(data[0]).lazy(), data[1]))


def test_mixed_frames_survive_the_sealed_file(tmp_path, data):
    X, y = data
    frame = pd.DataFrame(
        {
            "a": X[:, 0],
            "n": np.arange(4_000) % 7,
            "b": X[:, 1] > 0,
            "c": pd.Categorical(np.where(X[:, 2] > 0, "u", "v")),
            "s": np.where(X[:, 3] > 0, "yes", "no"),
        }
    )
    ReusableHoldout.create(tmp_path / "a.ledger", frame, y, mechanism="gaussian", max_queries=9)
    again = ReusableHoldout.open(tmp_path / "a.ledger")
    sealed = again._parts.blocks.sealed.X
    assert list(sealed.dtypes) == list(frame.dtypes)
    assert again.ask(lambda X, y: X["c"] == "u", query_id="c").query_index == 1
    assert ReusableHoldout.open(tmp_path / "a.ledger", frame, y).remaining == 8


def test_multiplicative_weights_from_outside():
    rng = np.random.default_rng(0)
    codes = (rng.random((20_000, 6)) < 0.3).astype(int)
    holdout = ReusableHoldout.create(
        None, codes, mechanism="multiplicative_weights", max_queries=200
    )
    by_mask = holdout.ask(Conjunction((0, 1)))
    assert abs(by_mask.value - 0.09) <= by_mask.radius
    by_vector = holdout.ask(lambda U: U[:, 0] * U[:, 1])
    assert abs(by_vector.value - by_mask.value) < 2 * holdout._parts.session.mechanism.threshold
    with pytest.raises(DataError, match="each of the 64 cells"):
        holdout.ask(lambda U: U[:5, 0])
    with pytest.raises(ParameterError, match="levels must give at least 2 levels for each of 6"):
        ReusableHoldout.create(None, codes, mechanism="multiplicative_weights", levels=[2, 3])
    with pytest.raises(DataError, match="integer codes"):
        ReusableHoldout.create(None, codes + 0.5, mechanism="multiplicative_weights")


def test_stable_quantile_from_outside(data):
    X, _ = data
    holdout = create(
        (X, 2 * X[:, 0] + X[:, 1]),
        mechanism="stable_quantile",
        max_queries=2,
        records_per_group=8,
        grid_size=128,
    )
    slope = lambda X, y: np.polyfit(X[:, 0], y, 1)[0]  # noqa: E731
    answer = holdout.ask(slope, lo=0, hi=4)
    assert abs(answer.value - 2) < 0.3
    assert answer.status == "quantile"
    with pytest.raises(ParameterError, match="needs records_per_group"):
        create(data, mechanism="stable_quantile")


def test_winner_only_from_outside(data):
    holdout = create(data, mechanism="winner_only", max_queries=200)
    answers = holdout.ask_many([lambda X, y, j=j: (X[:, j] > 0) != y for j in range(4)])
    assert answers.winner == 0
    assert all(math.isnan(a.value) for a in answers)


# ---------------------------------------------------------------------- what never leaves the rows
def test_rows_cannot_be_taken_out(gaussian):
    for take in (
        lambda: gaussian[0],
        lambda: np.asarray(gaussian),
        lambda: list(gaussian),
        lambda: gaussian.fit(None, None),
    ):
        with pytest.raises(TypeError, match="never shows its rows"):
            take()
    assert copy.deepcopy(gaussian) is gaussian
    assert copy.copy(gaussian) is gaussian


def test_representations_hold_no_values(data):
    X, y = data
    secret = X.copy()
    secret[0, 0] = 123456.789
    holdout = create((secret, y))
    for text in (
        repr(holdout),
        str(holdout.report()),
        holdout._repr_html_(),
        repr(holdout._parts.blocks.sealed),
        str(holdout.export()),
    ):
        assert "123456" not in text


def test_errors_do_not_quote_the_holdout(data):
    X, y = data
    secret = X.copy()
    secret[0, 0] = 123456.789
    holdout = create((secret, y))

    def leaky(X, y):
        raise ValueError(f"row 0 is {X[0, 0]}")

    with pytest.raises(ValueError, match="row 0 is") as caught:
        holdout.ask(leaky)
    chain, text = caught.value, ""
    while chain is not None:
        text += str(chain)
        chain = chain.__cause__ or chain.__context__
    assert "123456" not in text
    assert holdout.remaining == 100

    def conditional(X, y):
        if X[0, 0] > 1e5:
            raise ValueError(f"row 0 is {X[0, 0]}")
        return X[:, 0] > 0

    answer = holdout.ask(conditional)  # fails on the holdout only: charged, counted as all lo
    assert answer.remaining == 99
    assert answer.value < answer.radius


def test_warnings_do_not_speak_about_the_holdout(data):
    holdout = create(data)

    def telling(X, y):
        return np.log(X[:, 0]) > -1  # numpy warns where some value is negative

    answer = holdout.ask(telling)  # warnings are errors in these tests
    assert answer.status == "answered"
    truth = 1 - 0.5 * (1 + math.erf(math.exp(-1) / math.sqrt(2)))
    assert abs(answer.value - truth) < answer.radius


def test_wrong_shapes_are_reported_on_rows_without_information(data):
    holdout = create(data)
    with pytest.raises(DataError, match=r"expected shape \(4000,\).*got shape \(\)"):
        holdout.ask(lambda X, y: np.mean(X[:, 0] > 0))
    with pytest.raises(DataError, match=r"expected shape \(4000,\).*got shape \(7,\)"):
        holdout.ask(np.zeros(7))
    with pytest.raises(DataError, match="dtype"):
        holdout.ask(np.array(["a"] * 4_000))
    with pytest.raises(DataError, match="one row a holdout row"):
        holdout.ask_many(np.zeros((3, 2)))
    assert holdout.remaining == 100


def test_no_row_is_read_for_a_bad_array(data, monkeypatch):
    holdout = create(data)
    monkeypatch.setattr(
        type(holdout._parts.blocks), "rows", lambda *a: pytest.fail("the rows were touched")
    )
    with pytest.raises(DataError):
        holdout.ask(np.zeros(3))


# -------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mechanism": "gausian"}, "mechanism='gausian' is unknown.*gaussian"),
        ({"max_queries": 0}, "max_queries must be an integer of at least 1"),
        ({"beta": 1.0}, "beta must lie strictly between 0 and 1"),
        ({"beta": -0.1}, "beta must lie"),
        ({"width": 0.0}, "width must be a number above 0"),
        ({"sigma": 0.0}, "sigma must be a finite number above 0"),
        ({"eta": 0.1}, "mechanism='gaussian' does not take eta; its parameters: sigma"),
        ({"mechanism": "ladder", "eta": 1.5}, "eta must lie strictly between 0 and 1"),
        ({"mechanism": "thresholdout", "threshold": -1}, "threshold must be at least 0"),
        ({"mechanism": "thresholdout", "budget": 0}, "budget must be at least 1"),
        ({"mechanism": "guess_and_check", "check_fraction": 1.5}, "check_fraction must lie in"),
        ({"mechanism": "split_rounds", "rounds": 9_999}, "needs at least as many records"),
        ({"groups": np.zeros(4_000)}, "groups must name at least 2 records"),
        ({"groups": np.zeros(3)}, r"groups must have shape \(4000,\)"),
        ({"sample_weight": -np.ones(4_000)}, "sample_weight must be finite, not negative"),
        ({"train": np.zeros(3)}, r"train must be a pair \(X, y\)"),
        ({"statistic": "f1"}, "metric='f1' is unknown"),
        ({"statistic": "brier"}, "statistic='brier' is a plain mean"),
        ({"statistic": "tpr_gap"}, "pass sensitive_features="),
        ({"statistic": "tpr_gap", "sensitive_features": len}, "must name a column of X"),
        ({"random_state": 3}, "insecure_seed=True"),
        ({"random_state": "x", "insecure_seed": True}, "random_state must be an integer"),
    ],
)
def test_bad_arguments_are_named(data, kwargs, message):
    with pytest.raises(ValueError, match=message):
        create(data, **kwargs)


def test_too_few_rows():
    with pytest.raises(ParameterError, match="n_holdout must be at least 2 records. Got 1"):
        ReusableHoldout.create(None, np.zeros((1, 2)), np.zeros(1))
    with pytest.raises(DataError, match=r"y must have shape \(5,\)"):
        ReusableHoldout.create(None, np.zeros((5, 2)), np.zeros(4))
    with pytest.raises(DataError, match="X must be a table or a numeric array"):
        ReusableHoldout.create(None, np.array([object(), 3]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: h.ask(positive, lo=1, hi=1), "lo must be below hi"),
        (lambda h: h.ask(positive, hi=np.inf), "declare lo, hi"),
        (lambda h: h.ask(positive, guess=np.nan), "guess must be a finite number"),
        (lambda h: h.ask(positive, query_id=""), "query_id must be a non-empty string"),
        (lambda h: h.ask_many([]), "queries must hold at least 1 question"),
        (lambda h: h.ask_many([positive], guesses=[1, 2]), "guesses must hold one number a query"),
        (lambda h: h.ask_many([positive] * 2, query_ids=["a", "a"]), "2 different names"),
        (lambda h: h.score_many([]), "models must hold at least 1"),
        (lambda h: h.scorer("acuracy"), "metric='acuracy' is unknown.*accuracy"),
        (lambda h: h.plot("pie"), "kind must be one of"),
    ],
)
def test_bad_questions_are_named(gaussian, call, message):
    with pytest.raises(ParameterError, match=message):
        call(gaussian)
    assert gaussian.remaining == 100


def test_unbounded_metrics_need_a_range(gaussian, model):
    with pytest.raises(ValueError, match="declare lo, hi; e.g. clip log-loss at 5"):
        gaussian.score(model, "log_loss")
    with pytest.raises(ParameterError, match="pass sensitive_features="):
        gaussian.score(model, "tpr_gap")
    with pytest.raises(ParameterError, match="score does not take average"):
        gaussian.score(model, "accuracy", average="macro")
    with pytest.raises(ParameterError, match=r"has 4000 groups; name the two"):
        gaussian.score(model, "accuracy_gap", sensitive_features=0)


def test_exhausted_budget(data):
    holdout = create(data, max_queries=2)
    holdout.ask(positive)
    holdout.ask(positive)
    with pytest.raises(BudgetExhaustedError, match=r"max_queries=2; 2 are used and 1 more"):
        holdout.ask(positive)
    assert isinstance(BudgetExhaustedError("x"), RuntimeError)


def test_a_refusal_that_reveals_something_is_charged(data):
    holdout = create(
        data,
        mechanism="guess_and_check",
        width=0.05,
        check_fraction=1.0,
        allow_doubling=False,
        max_queries=50,
    )

    def ask_badly():
        for _ in range(50):
            holdout.ask(positive, guess=0.9)

    with pytest.raises(BudgetExhaustedError, match="cannot certify tau"):
        ask_badly()
    used = holdout._parts.session.ledger.state().k_used
    assert 0 < used < 50
    assert holdout.remaining == 0
    with pytest.raises(BudgetExhaustedError, match="has stopped answering"):
        holdout.ask(positive, guess=0.5)


def test_many_failed_guesses_warn(data):
    holdout = create(data, mechanism="guess_and_check", width=0.2, check_fraction=1.0)
    for _ in range(5):
        holdout.ask(positive, guess=0.9)
    with pytest.warns(CausalFairWarning, match="6 guesses have failed the check"):
        holdout.ask(positive, guess=0.9)


def test_vacuous_settings(data):
    with pytest.raises(VacuousGuaranteeError, match=r"radius of 0\.01 for 100 queries needs n="):
        create(data, width=0.01)
    forced = create(data, max_queries=10**6, force=True)
    assert forced.radius > 0.5


def test_missing_guesses(data):
    # Noise cannot be seeded: four answers never use half of a budget of ten, which would warn.
    holdout = create(data, mechanism="thresholdout", budget=10)
    with pytest.raises(ParameterError, match="needs a guess for every question"):
        holdout.ask(positive)
    with pytest.raises(ParameterError, match="needs guesses= for an array"):
        holdout.ask_many(data[0] > 0)
    answers = holdout.ask_many(data[0] > 0, guesses=[0.5] * 4)
    assert {answer.status for answer in answers} <= {"training", "holdout", "refused"}
    assert answers[0].status != "refused"


# --------------------------------------------------------------------------------------- warnings
def test_uncertified_mechanisms_warn_once(data):
    with pytest.warns(UncertifiedWarning, match="ladder_free"):
        holdout = create(data, mechanism="ladder_free")
    assert not holdout.ask(positive).certified
    assert not holdout.certified


def test_naive_warns_at_the_second_question(data):
    holdout = create(data, mechanism="naive")
    assert not holdout.ask(positive).certified
    with pytest.warns(UncertifiedWarning, match="not for adaptive ones"):
        holdout.ask(positive)
    holdout.ask(positive)  # once is enough
    assert exact(data).ask(positive).certified


def test_predictable_noise_is_not_certified_and_repeats(data):
    answers = []
    for _ in range(2):
        with pytest.warns(UncertifiedWarning, match="predictable"):
            holdout = create(data, random_state=3, insecure_seed=True)
        answers.append(holdout.ask(positive))
    assert not answers[0].certified
    assert answers[0].value == answers[1].value
    assert create(data).ask(positive).value != create(data).ask(positive).value


def test_repeated_ids_without_groups_warn(data):
    X, y = data
    frame = pd.DataFrame(X, columns=list("abcd")).assign(person_id=np.arange(4_000) // 2)
    with pytest.warns(CausalFairWarning, match="person_id repeats across rows.*groups="):
        create((frame, y))
    create((frame, y), groups=frame["person_id"])


def test_training_rows_in_the_holdout_warn(data, training):
    mixed = (np.vstack((training[0], data[0][:25])), np.append(training[1], data[1][:25]))
    with pytest.warns(CausalFairWarning, match="25 of 4000 holdout rows"):
        create(data, mechanism="guess_and_check", train=mixed)


def test_noisy_guesses_warn(data):
    with pytest.warns(CausalFairWarning, match="guess_sigma=0.2 is above tau/6"):
        create(data, mechanism="guess_and_check", guess_sigma=0.2)


def test_thresholdout_warns_when_its_budget_goes_fast(data):
    holdout = create(data, mechanism="thresholdout", budget=2, max_queries=100, threshold=0.0)
    with pytest.warns(CausalFairWarning, match="more than half of its budget"):
        holdout.ask_many([positive] * 3, guesses=[0.0, 0.0, 0.0])


# ---------------------------------------------------------------------------------------- reports
def test_report_reads_well(data):
    holdout = create(data)
    holdout.ask(positive, query_id="first")
    text = str(holdout.report())
    assert max(map(len, text.splitlines())) <= 88
    for word in ("gaussian", "certified: yes", "1 of 100", "Ledger head", "sigma"):
        assert word in text
    assert "<table" in holdout._repr_html_()
    exported = json.loads(json.dumps(holdout.export(), allow_nan=False))
    assert exported["answers"][0]["query_id"] == "first"
    assert list(holdout.to_frame()["query_id"]) == ["first"]
    assert "gamma_index" not in exported["state"]


def test_citations_name_the_mechanism(data):
    assert "rogers2020guaranteed" in create(data, mechanism="guess_and_check").cite()
    assert "@article{dwork2015reusable" in create(data).cite().bibtex()


@pytest.mark.parametrize("kind", ["answers", "budget", "width"])
def test_plots(data, training, kind):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    holdout = create(data, mechanism="thresholdout", train=training, budget=5)
    for _ in range(3):
        holdout.ask(positive)
    axes = holdout.plot(kind)
    assert axes.get_xlabel()
    assert axes.get_ylabel()
    plt.close(axes.figure)
