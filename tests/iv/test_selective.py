"""SelectiveATE: the choice against brute force, nested and smooth inference, candidates, contract."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pytest
from naive import iv_ml as naive
from naive.iv_curved import ATE, curved_study
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

from causalfair._core.crossfit import CrossFitter
from causalfair._core.random import root_seed
from causalfair._core.roles import resolve_roles
from causalfair.datasets import make_invalid_iv
from causalfair.exceptions import DataError, ParameterError
from causalfair.iv import SelectiveATE, minimal_covers
from causalfair.iv._candidates import resolve_candidates
from causalfair.iv._choice import full_index, nested_choice
from causalfair.iv._combinations import PATH, SLOTS, combination_nuisances
from causalfair.iv._learning import learn_fold
from causalfair.iv._plan import IVData, gather
from causalfair.iv._scores import direct_effect_scores, influence_scores

NAMES = {"treatment": "treatment", "instrument": "instrument", "covariates": ["x1", "x2"]}
CURVED = {"treatment": "a", "instrument": "z", "covariates": ["x1", "x2"]}


def squared(model):
    return make_pipeline(PolynomialFeatures(2, include_bias=False), model)


CANDIDATES = {
    "line": (LogisticRegression(), LinearRegression()),
    "square": (squared(LogisticRegression(max_iter=1000)), squared(LinearRegression())),
}


def selective(candidates=None, **kwargs):
    kwargs = {"n_folds": 3, "random_state": 0, **kwargs}
    return SelectiveATE(CANDIDATES if candidates is None else candidates, **kwargs)


def pieces(est, frame, roles=NAMES):
    """Held-out candidates of a fitted estimator, learned again from its parameters."""
    a = frame[roles["treatment"]].to_numpy(float)
    data = IVData(
        X=resolve_roles(frame, owner="test", covariates=roles["covariates"]).covariates,
        z=frame[roles["instrument"]].to_numpy(float),
        a=a,
        y=frame["y"].to_numpy(float),
        binary=len(np.unique(a)) == 2,
    )
    plan = est._plan(data)
    fitter = CrossFitter(
        est.n_folds, 1, stratify=data.cells, random_state=root_seed(est.random_state)
    )
    learned = fitter.map(partial(learn_fold, data=data, plan=plan), data.n)[0]
    candidates, losses = gather(learned, data, plan)
    return data, plan, fitter, candidates, losses


@pytest.fixture(scope="module")
def study():
    return make_invalid_iv(2000, random_state=3)


@pytest.fixture(scope="module")
def fitted(study):
    return selective().fit(study[0], "y", **NAMES)


@pytest.mark.parametrize("criterion", ["mixed-minimax", "minimax"])
def test_choice_equals_brute_force(study, criterion):
    """From the scores of every combination, row by row, to the chosen one."""
    frame, _ = study
    est = selective(criterion=criterion).fit(frame, "y", **NAMES)
    data, _, fitter, candidates, _ = pieces(est, frame)
    folds = fitter.folds(data.n)[:, 0]
    values = np.empty((3, *candidates.counts))
    for index in product(*map(range, candidates.counts)):
        phi = influence_scores(data.z, data.a, data.y, combination_nuisances(candidates, index))
        values[(slice(None), *index)] = [phi[folds == s].mean() for s in range(3)]
    covers = [[SLOTS.index(slot) for slot in cover] for cover in minimal_covers(PATH)]
    parts = naive.risk_parts(values, covers, criterion)
    np.testing.assert_allclose(est.selection_.parts, parts, rtol=1e-6, atol=1e-10)
    risk = parts.sum(axis=0) if criterion == "mixed-minimax" else parts.max(axis=0)
    best = np.unravel_index(int(np.argmin(risk)), risk.shape)
    assert est.selection_.index == best
    phi = influence_scores(data.z, data.a, data.y, combination_nuisances(candidates, best))
    assert np.array_equal(est.scores_, phi)
    assert est.estimates_.estimate[0] == pytest.approx(phi.mean(), rel=1e-12)
    assert est.estimates_.std_error[0] == pytest.approx(phi.std() / np.sqrt(data.n), rel=1e-12)


def test_tables(fitted):
    table = fitted.risk_table_
    assert len(table) == 32
    assert table["selected"].sum() == 1
    assert dict(table.iloc[0][list(SLOTS)]) == fitted.selected_
    parts = table.filter(like="part:")
    assert parts.shape[1] == 4
    np.testing.assert_allclose(parts.sum(axis=1), table["risk"])
    assert fitted.family_estimates_["family"].tolist() == ["line", "square"]
    row = table[(table[list(SLOTS)] == "line").all(axis=1)]
    family = fitted.family_estimates_.iloc[0]
    assert family["estimate"] == pytest.approx(row["estimate"].item(), abs=1e-3)
    assert family["risk"] == pytest.approx(row["risk"].item())
    assert fitted.losses_.groupby("nuisance")["selected"].sum().eq(1).all()
    assert len(fitted.losses_) == 10


def test_summary_reads_well(fitted):
    text = str(fitted.summary())
    assert max(map(len, text.splitlines())) <= 88
    for part in ("combinations: 32", "one family everywhere", "ignore that the learners"):
        assert part in text
    assert "cui2024selective" in fitted.cite().bibtex()


def test_nested_choices_see_only_training_rows(study):
    frame, _ = study
    est = selective(inference="nested").fit(frame, "y", **NAMES)
    data, plan, fitter, candidates, _ = pieces(est, frame)
    folds = fitter.folds(data.n)
    for task in fitter.tasks(folds):
        # Outcomes of the scored rows are spoiled: the choice must not notice.
        spoiled = data.y.copy()
        spoiled[task.test] = 1e6
        changed = IVData(X=data.X, z=data.z, a=data.a, y=spoiled, binary=True)
        choice = nested_choice(
            task, data=changed, plan=plan, criterion=est.criterion, n_folds=est.n_folds
        )
        row = est.nested_selection_.iloc[task.fold]
        assert choice.chosen == {slot: row[slot] for slot in SLOTS}
        phi = influence_scores(
            data.z, data.a, data.y, combination_nuisances(candidates, full_index(choice))
        )
        assert np.array_equal(est.scores_[task.test], phi[task.test])
    assert "no scored row took part" in str(est.summary())
    # What was chosen on all rows stays visible.
    assert len(est.risk_table_) == 32


def test_smooth_is_the_weighted_average(study):
    frame, _ = study
    est = selective(inference="smooth", smoothing=0.3).fit(frame, "y", **NAMES)
    data, _, _, candidates, _ = pieces(est, frame)
    table = est.risk_table_
    assert table["weight"].sum() == pytest.approx(1.0)
    chosen = selective().fit(frame, "y", **NAMES)
    rate = 0.3 / chosen.estimates_.std_error[0] ** 2
    expected = np.exp(-rate * (table["risk"] - table["risk"].min()))
    np.testing.assert_allclose(table["weight"], expected / expected.sum(), rtol=1e-9)
    phi, direct = np.zeros(data.n), np.zeros(data.n)
    for _, row in table.iterrows():
        index = tuple(list(CANDIDATES).index(row[slot]) for slot in SLOTS)
        nuisances = combination_nuisances(candidates, index)
        phi += row["weight"] * influence_scores(data.z, data.a, data.y, nuisances)
        direct += row["weight"] * direct_effect_scores(data.z, data.a, data.y, nuisances)
    np.testing.assert_allclose(est.scores_, phi, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(est.estimates_.estimate, [phi.mean(), direct.mean()], rtol=1e-9)


def test_smoothing_limits(study):
    frame, _ = study
    sharp = selective(inference="smooth", smoothing=1e9).fit(frame, "y", **NAMES)
    plain = selective().fit(frame, "y", **NAMES)
    np.testing.assert_allclose(sharp.estimates_.estimate, plain.estimates_.estimate, rtol=1e-9)
    flat = selective(inference="smooth", smoothing=0.0).fit(frame, "y", **NAMES)
    np.testing.assert_allclose(flat.risk_table_["weight"], 1 / 32)


def test_one_sided_has_three_sets_and_four_slots():
    frame, truth = make_invalid_iv(2000, one_sided=True, random_state=0)
    est = selective(one_sided=True).fit(frame, "y", **NAMES)
    assert list(est.selected_) == ["instrument", "treatment", "effect", "outcome"]
    assert est.risk_table_.filter(like="part:").columns.tolist() == [
        "part:instrument+treatment",
        "part:effect+treatment",
        "part:effect+outcome",
    ]
    assert len(est.risk_table_) == 16
    assert np.all(est.nuisances_.omega == 0.0)
    assert abs(est.estimates_.estimate[0] - truth["ate"]) < 4 * est.estimates_.std_error[0]
    for how in ("nested", "smooth"):
        other = selective(one_sided=True, inference=how).fit(frame, "y", **NAMES)
        assert abs(other.estimates_.estimate[0] - truth["ate"]) < 4 * est.estimates_.std_error[0]


def test_continuous_treatment():
    frame, truth = make_invalid_iv(3000, treatment="continuous", random_state=1)
    est = selective().fit(frame, "y", **NAMES)
    assert abs(est.estimates_.estimate[0] - truth["ate"]) < 4 * est.estimates_.std_error[0]


def test_outcome_given_every_effect(study):
    frame, _ = study
    est = selective(outcome_given="effect").fit(frame, "y", **NAMES)
    data, _, _, candidates, _ = pieces(est, frame)
    assert candidates.mu.shape[:2] == (2, 2)
    index = full_index(est.selection_)
    phi = influence_scores(data.z, data.a, data.y, combination_nuisances(candidates, index))
    assert np.array_equal(est.scores_, phi)


# Small forests may find rows whose variance shift has the other sign; which, depends on scikit-learn.
@pytest.mark.filterwarnings("ignore:.*changes sign:causalfair.exceptions.WeakIdentificationWarning")
def test_same_bits_for_any_number_of_workers(study):
    frame, _ = study
    forest = {
        "forest": (
            RandomForestClassifier(5, min_samples_leaf=20),
            RandomForestRegressor(5, min_samples_leaf=20),
        ),
        "line": CANDIDATES["line"],
    }
    with np.errstate(all="raise"):
        one, two = (selective(forest, n_jobs=jobs).fit(frame, "y", **NAMES) for jobs in (1, 2))
    assert np.array_equal(one.scores_, two.scores_)
    assert one.risk_table_.equals(two.risk_table_)
    other = selective(forest, random_state=1).fit(frame, "y", **NAMES)
    assert not np.array_equal(one.scores_, other.scores_)


def test_same_bits_for_any_table(study, fitted):
    pl, pa = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    frame, _ = study
    for table in (pl.from_pandas(frame), pa.Table.from_pandas(frame)):
        again = clone(fitted).fit(table, "y", **NAMES)
        assert np.array_equal(again.scores_, fitted.scores_)
    arrays = clone(fitted).fit(
        frame[["x1", "x2"]].to_numpy(),
        frame["y"].to_numpy(),
        treatment=frame["treatment"].to_numpy(),
        instrument=frame["instrument"].to_numpy(),
    )
    assert np.array_equal(arrays.scores_, fitted.scores_)


# Candidates ----------------------------------------------------------------------------------


def test_forms_of_candidates():
    line, logit = LinearRegression(), LogisticRegression()
    families = resolve_candidates({"a": (logit, line), "b": "linear"}, binary=True, n=9, p=1)
    assert all(list(families[slot]) == ["a", "b"] for slot in SLOTS)
    assert families["treatment"]["a"] is logit
    continuous = resolve_candidates({"a": (logit, line)}, binary=False, n=9, p=1)
    assert continuous["treatment"]["a"] is line
    slots = resolve_candidates(
        {"instrument": {"one": logit}, "effect": {"two": line, "three": "const"}},
        binary=True, n=9, p=1,
    )  # fmt: skip
    assert list(slots["effect"]) == ["two", "three"]
    assert list(slots["outcome"]) == ["default"]
    partly = resolve_candidates({"a": {"effect": "t"}, "b": (logit, line)}, binary=True, n=9, p=1)
    assert list(partly["effect"]) == ["a", "b"]
    assert list(partly["outcome"]) == ["b"]
    ready = resolve_candidates(["linear", "quadratic", "boosting", "forest"], binary=True, n=9, p=1)
    assert list(ready["outcome"]) == ["linear", "quadratic", "boosting", "forest"]


@pytest.mark.parametrize(
    ("candidates", "error", "match"),
    [
        (["linear", "trees"], ParameterError, "family 'trees'.*Families: linear"),
        (["lin"], ParameterError, "Did you mean 'linear'"),
        ([], ParameterError, "candidates is empty"),
        ([LinearRegression()], ParameterError, "must be a list of family names"),
        ({"a": LinearRegression()}, ParameterError, r"pair \(classifier, regressor\)"),
        ({"a": {"outcom": LinearRegression()}}, ParameterError, "Did you mean 'outcome'"),
        ({"effect": LinearRegression()}, ParameterError, "mapping from name to learner"),
        ({"a": (LinearRegression(), LinearRegression())}, TypeError, "instrument_learner 'a'"),
        ({"effect": {"a": "best"}}, ParameterError, "effect_learner 'a'='best'"),
    ],
)
def test_bad_candidates(candidates, error, match):
    with pytest.raises(error, match=match):
        resolve_candidates(candidates, binary=True, n=100, p=2)


def test_ready_made_families_run(study):
    frame, _ = study
    est = selective(["linear", "quadratic"], n_folds=2).fit(frame, "y", **NAMES)
    learners = set(est.losses_["learner"])
    assert learners == {"LogisticRegression", "RidgeCV"}


def test_bad_input(study):
    frame, _ = study
    with pytest.raises(DataError, match="no covariates to learn from"):
        selective().fit(frame, "y", treatment="treatment", instrument="instrument", covariates=[])
    many = {f"c{k}": CANDIDATES["line"] for k in range(16)}
    with pytest.raises(ParameterError, match="1,048,576 combinations"):
        selective(many).fit(frame, "y", **NAMES)
    region = frame.assign(region=np.where(frame["x1"] > 0, "north", "south"))
    with pytest.raises(DataError, match="region"):
        selective({"effect": {"line": "linear", "flat": "const"}}).fit(
            region, "y", **{**NAMES, "covariates": ["x1", "region"]}
        )
    with pytest.raises(ValueError, match="criterion"):
        selective(criterion="best").fit(frame, "y", **NAMES)


# Statistical behaviour -----------------------------------------------------------------------


def compare_with_families(draws, n, families):
    """Root mean squared errors of the selected estimate and of every family, and the choices."""
    selected, single, choices = [], [], []
    for r in range(draws):
        est = SelectiveATE(families, random_state=r).fit(curved_study(n, r), "y", **CURVED)
        selected.append(est.estimates_.estimate[0] - ATE)
        single.append(est.family_estimates_["estimate"].to_numpy() - ATE)
        choices.append(est.selected_)
    return np.array(selected), np.array(single), choices


def rmse(errors):
    return np.sqrt(np.mean(np.square(errors), axis=0))


def test_wrong_families_are_not_chosen():
    """The line is wrong for instrument, effect and outcome; the square is right for all."""
    selected, single, choices = compare_with_families(6, 4000, CANDIDATES)
    assert rmse(single)[0] > 0.6
    assert rmse(selected) < 0.5 * rmse(single)[0]
    assert sum(choice["effect"] == "line" for choice in choices) <= 1


@pytest.mark.slow
def test_selected_beats_or_matches_every_single_family():
    """Linear, quadratic and boosted candidates for all five nuisances, 24 studies of 4,000 rows."""
    selected, single, choices = compare_with_families(24, 4000, ["linear", "quadratic", "boosting"])
    line, square, boosted = rmse(single)
    assert rmse(selected) < line / 3
    assert rmse(selected) < boosted / 1.3
    assert rmse(selected) < 1.25 * square
    assert all(choice["effect"] != "linear" for choice in choices)


@pytest.mark.slow
def test_nested_inference_covers():
    """Intervals of the nested choice, 200 studies: inside the 99 % binomial band."""
    covered = 0
    for r in range(200):
        est = selective(inference="nested", random_state=r).fit(
            curved_study(2000, 5000 + r), "y", **CURVED
        )
        low, high = est.conf_int()[0]
        covered += low < ATE < high
    assert 181 <= covered <= 197
