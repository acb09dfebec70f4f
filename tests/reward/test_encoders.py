"""Neural encoders: any function, sentence embeddings, and a linear head on a frozen classifier."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
from reward import tiny_models

from causalfair.datasets import make_headlines
from causalfair.exceptions import DataError, MissingDependencyError, ParameterError
from causalfair.reward import DeconfoundedReward, TransformerEncoder, write_head
from causalfair.reward._encoders import make_featurizer

# The packages below deprecate parts of each other; none of it is ours.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def logs():
    return make_headlines(300, n_categories=4, random_state=0)[0]


def lengths(texts):
    return np.array([[len(t), t.count("o")] for t in texts], dtype=np.float32)


def fit(logs, features, **options):
    return DeconfoundedReward(features=features, random_state=0, **options).fit(
        logs, "outcome", text="headline", categorical=["section"]
    )


def test_a_function_is_a_featurizer(logs):
    reward = fit(logs, lengths, penalty=0.0)
    array = DeconfoundedReward(penalty=0.0, random_state=0).fit(
        logs, "outcome", embedding=lengths(logs["headline"]), categorical=["section"]
    )
    np.testing.assert_allclose(reward.coef_, array.coef_, atol=1e-12)
    texts = ["foo", "go for it"]
    np.testing.assert_allclose(reward.predict(texts), array.predict(lengths(texts)), atol=1e-12)
    again = pickle.loads(pickle.dumps(reward))
    np.testing.assert_array_equal(again.predict(texts), reward.predict(texts))


@pytest.mark.parametrize(
    ("features", "error", "match"),
    [
        (lambda texts: np.zeros(len(texts)), DataError, r"shape \(300,\) for 300 texts"),
        (lambda texts: np.zeros((1, 2)), DataError, r"shape \(1, 2\) for 300 texts"),
        (lambda texts: np.full((len(texts), 1), np.nan), DataError, "300 value.* not finite"),
        ("bert", ParameterError, "features='bert'"),
        (3, ParameterError, "features=3"),
    ],
)
def test_bad_features(logs, features, error, match):
    with pytest.raises(error, match=match):
        fit(logs, features)


def test_sentence_transformers_says_which_extra(monkeypatch, logs):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "causalfair\[text\]"'):
        fit(logs, "sentence-transformers:any")


def test_torch_says_which_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "causalfair\[torch\]"'):
        TransformerEncoder(None, None)
    with pytest.raises(MissingDependencyError, match=r'pip install "causalfair\[torch\]"'):
        write_head(None, None)


def test_sentence_transformers_from_a_folder(logs, tmp_path, monkeypatch):
    package = pytest.importorskip("sentence_transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = tiny_models.tokenizer(logs["headline"])
    words.save_pretrained(tmp_path)
    tiny_models.classifier("Bert", words).bert.save_pretrained(tmp_path)
    model = package.SentenceTransformer(str(tmp_path))  # adds the mean over tokens
    reward = fit(logs, f"sentence-transformers:{tmp_path}")
    texts = logs["headline"].tolist()[:20]
    embedded = np.asarray(model.encode(texts, show_progress_bar=False), dtype=float)
    want = (embedded - reward.mean_) @ reward.coef_
    np.testing.assert_allclose(reward.predict(texts), want, atol=1e-5)
    again = pickle.loads(pickle.dumps(reward))
    assert again.featurizer_.encode._model is None
    np.testing.assert_allclose(again.predict(texts), want, atol=1e-5)


def test_an_unknown_sentence_model_is_named(logs, tmp_path, monkeypatch):
    pytest.importorskip("sentence_transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="folder of a model that was saved"):
        make_featurizer(f"sentence-transformers:{tmp_path / 'nothing'}", None).transform(["a"])


@pytest.mark.parametrize(
    ("kind", "options"), [("Bert", {}), ("Llama", {}), ("Roberta", {"max_position_embeddings": 80})]
)
def test_head_of_a_frozen_classifier(logs, tmp_path, kind, options):
    torch = pytest.importorskip("torch")
    words = tiny_models.tokenizer(logs["headline"])
    model = tiny_models.classifier(kind, words, **options)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    encoder = TransformerEncoder(model, words, batch_size=64)
    reward = fit(logs, encoder, penalty=1e-3)
    assert reward.coef_.shape == (16,)
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())

    assert write_head(reward, model) is model
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    texts = logs["headline"].tolist()[:30]
    batch = words(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = loaded(**batch).logits[:, 0].numpy().astype(float)
    want = reward.predict(texts)
    gap = logits - want  # a constant where the head has no intercept
    np.testing.assert_allclose(gap - gap.mean(), 0, atol=1e-4 * np.abs(want).max() + 1e-5)
    if kind != "Llama":
        assert abs(gap.mean()) < 1e-4
    changed = [k for k, v in loaded.state_dict().items() if not torch.equal(before[k], v)]
    assert all("score" in k or "classifier" in k or "out_proj" in k for k in changed)


def test_batches_do_not_matter(logs):
    pytest.importorskip("torch")
    words = tiny_models.tokenizer(logs["headline"])
    model = tiny_models.classifier("Bert", words)
    texts = logs["headline"].tolist()[:50]
    small, large = (TransformerEncoder(model, words, batch_size=b)(texts) for b in (7, 50))
    np.testing.assert_allclose(small, large, atol=1e-5)


def test_heads_that_do_not_fit(logs):
    torch = pytest.importorskip("torch")
    words = tiny_models.tokenizer(logs["headline"])
    with pytest.raises(ParameterError, match="0 linear layers with one output"):
        TransformerEncoder(torch.nn.Linear(3, 2), words)
    with pytest.raises(ParameterError, match="batch_size=0"):
        TransformerEncoder(tiny_models.classifier("Bert", words), words, batch_size=0)
    reward = fit(logs, lengths)
    with pytest.raises(ParameterError, match="the reward has 2 features .* takes 16"):
        write_head(reward, tiny_models.classifier("Bert", words))
    from sklearn.linear_model import Ridge

    flexible = fit(logs, lengths, learner=Ridge(), n_refits=2, n_folds=2)
    with pytest.raises(ParameterError, match='learner="ridge"'):
        write_head(flexible, tiny_models.classifier("Bert", words))
