"""Text features: normalisation, named style, TF-IDF with a truncated SVD."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from causalfair.datasets import make_headlines
from causalfair.exceptions import DataError, ParameterError
from causalfair.reward import DeconfoundedReward, TextFeaturizer
from causalfair.reward._features import (
    STYLE_NAMES,
    as_texts,
    normalize_text,
    style_features,
    text_codes,
)


@pytest.fixture(scope="module")
def texts():
    return make_headlines(500, n_categories=5, random_state=0)[0]["headline"].tolist()


@pytest.mark.parametrize(
    ("raw", "want"),
    [
        ("  a\t b\n", "a b"),
        ("Tom &amp; Ann", "Tom & Ann"),
        ("ﬁne　day", "fine day"),
        ("", ""),
        ("x²", "x2"),
    ],
)
def test_normalisation(raw, want):
    assert normalize_text(raw) == want
    assert normalize_text(want) == want


def test_duplicates_are_found_after_normalisation():
    assert text_codes(["a  b", "c", "a b", "A b"]).tolist() == [0, 1, 0, 2]


def test_style_of_a_text():
    text = "WOW! You won't believe 7 things <b>they</b> did... “Why?” http://x.y"
    style = dict(zip(STYLE_NAMES, style_features([text])[0], strict=True))
    assert style["tokens"] == 13
    assert style["characters"] == len(text)
    assert style["digits"] == 1
    assert style["question_marks"] == style["exclamation_marks"] == style["ellipses"] == 1
    assert style["quotes"] == 3  # two curly and the apostrophe
    assert style["all_caps_words"] == 1
    assert (style["pronoun_you"], style["pronoun_they"], style["pronoun_i"]) == (1, 1, 0)
    assert style["has_url"] == style["has_html"] == 1
    assert style["capitals_share"] == pytest.approx(5 / 42)
    assert style["mean_word_length"] == pytest.approx(42 / 13)
    assert style["type_token_ratio"] == pytest.approx(12 / 13)  # "b" comes twice


def test_style_of_nothing_is_finite():
    style = style_features(["", "   ", "!!!", "日本語"])
    assert np.isfinite(style).all()
    assert style[0].sum() == 0


def test_features_are_those_of_the_definition(texts):
    model = TextFeaturizer(n_components=12, random_state=0).fit(texts)
    X = model.transform(texts)
    counts = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit_transform(texts)
    V = model.components_
    np.testing.assert_allclose(V @ V.T, np.eye(12), atol=1e-8)
    raw = counts @ V.T
    np.testing.assert_allclose(X[:, :12], raw / np.sqrt(raw.var(axis=0).mean()), atol=1e-10)
    assert X[:, :12].var(axis=0).mean() == pytest.approx(1)
    # a truncated SVD: no other subspace of that size carries more, up to the sketch's error
    _, values, _ = np.linalg.svd(counts.toarray(), full_matrices=False)
    assert (raw**2).sum() > 0.98 * (values[:12] ** 2).sum()
    largest = np.abs(V).argmax(axis=1)
    assert (V[np.arange(12), largest] > 0).all()


def test_new_texts_get_the_features_of_old_ones(texts):
    model = TextFeaturizer(random_state=0)
    first = model.fit_transform(texts)
    np.testing.assert_allclose(model.transform(texts), first, atol=1e-12)
    np.testing.assert_allclose(model.transform(texts[:1]), first[:1], atol=1e-12)
    assert list(model.get_feature_names_out()[:2]) == ["svd0", "svd1"]
    assert len(model.get_feature_names_out()) == first.shape[1] == len(model.blocks_)
    assert set(model.blocks_) == {"text", "style"}
    assert first.shape[1] - (model.blocks_ == "text").sum() == len(model.style_kept_)


def test_seeds(texts):
    one, again, other = (TextFeaturizer(random_state=s).fit_transform(texts) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_sample_of_rows_is_enough_for_the_svd(texts):
    X = TextFeaturizer(n_components=8, svd_rows=200, style=False, random_state=0).fit_transform(
        texts
    )
    assert X.shape == (500, 8)
    full = TextFeaturizer(n_components=8, style=False, random_state=0).fit_transform(texts)
    gap = X - full @ np.linalg.lstsq(full, X, rcond=None)[0]
    assert (gap**2).sum() < 0.5 * (X**2).sum()


def test_contributions_add_up(texts):
    model = TextFeaturizer(n_components=10, random_state=0).fit(texts)
    coefficient = np.random.default_rng(0).normal(size=len(model.blocks_))
    parts = model.ngram_contributions(texts[0], coefficient)
    want = model.transform(texts[:1])[0, :10] @ coefficient[:10]
    assert sum(parts.values()) == pytest.approx(want, abs=1e-10)
    assert set(" ".join(parts).split()) <= set(texts[0].split())


def test_character_ngrams_help_with_misspellings(texts):
    plain = TextFeaturizer(style=False, random_state=0).fit(texts)
    spelt = TextFeaturizer(characters=True, style=False, random_state=0).fit(texts)
    assert np.abs(plain.transform(["shockk"])).max() == 0
    near, far = (spelt.transform([w])[0] for w in ("shockk", "zzzzz"))
    target = spelt.transform(["shock"])[0]
    assert np.linalg.norm(near - target) < np.linalg.norm(far - target)
    parts = spelt.ngram_contributions("shock", np.ones(len(spelt.components_)))
    assert {"shock", "ock"} <= set(parts)


def test_hashing_forgets_words_but_predicts(texts):
    model = TextFeaturizer("hashing", n_components=10, random_state=0).fit(texts)
    assert model.ngram_contributions(texts[0], np.ones(len(model.blocks_))) == {}
    np.testing.assert_allclose(model.transform(texts), model.fit_transform(texts), atol=1e-12)


def test_own_vectorizer(texts):
    own = CountVectorizer(binary=True)
    model = TextFeaturizer(own, n_components=5, random_state=0).fit(texts)
    assert not hasattr(own, "vocabulary_")
    assert clone(model).vectorizer is not own
    with pytest.raises(ParameterError, match="characters=True goes with"):
        TextFeaturizer(own, characters=True).fit(texts)


@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        (["a", None], DataError, "row 1 is None"),
        (["a", float("nan")], DataError, r"row 1 is nan \(float\)"),
        (["one two", "three four", "five six"], DataError, "no words in common"),
    ],
)
def test_bad_texts(values, error, match):
    with pytest.raises(error, match=match):
        TextFeaturizer().fit(values)


def test_bad_vectorizer(texts):
    with pytest.raises(ParameterError, match="vectorizer='bm25'"):
        TextFeaturizer("bm25").fit(texts)


def test_one_text_alone_is_a_list_of_one():
    assert as_texts("abc", owner="x") == ["abc"]


def test_equal_features_have_no_difference(texts):
    frame, _ = make_headlines(400, n_categories=4, random_state=0)
    reward = DeconfoundedReward(
        features=TextFeaturizer(n_components=20, random_state=0), random_state=0
    ).fit(frame, "outcome", text="headline", categorical=["section"])
    same = reward.contrast("quux foo", "quux  foo")
    assert same.estimate[0] == 0.0
    assert same.std_error[0] == 0.0
    assert reward.predict(["shock &amp; hope"]) == reward.predict(["shock & hope"])
