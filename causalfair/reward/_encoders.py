"""How raw text becomes numbers: by name, by a function, or by a frozen neural encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from causalfair._core.optional import import_optional
from causalfair._core.typing import FloatArray
from causalfair.exceptions import DataError, ParameterError
from causalfair.reward._features import TextFeaturizer

__all__ = ["TransformerEncoder", "make_featurizer", "write_head"]

SENTENCE = "sentence-transformers:"


def make_featurizer(features: Any, seed: Any) -> Any:
    """The transformer behind ``features=``: a name, a callable on texts, or a transformer."""
    if isinstance(features, str):
        if features in ("tfidf", "hashing"):
            return TextFeaturizer(features, random_state=seed)
        if features.startswith(SENTENCE):
            return Encoder(SentenceEncoder(features.removeprefix(SENTENCE)))
        raise ParameterError(
            f"features={features!r} must be 'tfidf', 'hashing', 'sentence-transformers:<model>', a "
            "function from a list of texts to an array, or a transformer."
        )
    if hasattr(features, "fit_transform"):
        from sklearn.base import clone

        return clone(features)
    if callable(features):
        return Encoder(features)
    raise ParameterError(f"features={features!r} is neither a name, a function nor a transformer.")


class Encoder:
    """Any function from texts to vectors, as a transformer."""

    def __init__(self, encode: Callable[[list[str]], Any]) -> None:
        self.encode = encode

    def fit_transform(self, texts: Sequence[str]) -> FloatArray:
        return self.transform(texts)

    def transform(self, texts: Sequence[str]) -> FloatArray:
        out = np.asarray(self.encode(list(texts)), dtype=np.float64)
        if out.ndim != 2 or len(out) != len(texts):
            raise DataError(
                f"features returned an array of shape {out.shape} for {len(texts)} texts; it must "
                "return (n_texts, d)."
            )
        if bad := int((~np.isfinite(out)).sum()):
            raise DataError(
                f"features returned {bad} value(s) that are not finite for {len(texts)} texts; "
                "the encoder must give a number for every text, the empty one included."
            )
        self.width_ = out.shape[1]
        return out

    def get_feature_names_out(self) -> Any:
        return np.array([f"e{j}" for j in range(self.width_)], dtype=object)


class SentenceEncoder:
    """A sentence-transformers model by name or folder, loaded when first used and not pickled."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._model: Any = None

    def __call__(self, texts: list[str]) -> Any:
        if self._model is None:
            module = import_optional("sentence_transformers", extra="text")
            try:
                self._model = module.SentenceTransformer(self.name)
            except OSError as error:
                raise DataError(
                    f"the sentence-transformers model {self.name!r} could not be loaded ({error}). "
                    "Without network, give the folder of a model that was saved before."
                ) from error
        return self._model.encode(texts, show_progress_bar=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "_model": None}


class TransformerEncoder:
    """What the last layer of a frozen sequence classifier sees: features for a linear reward.

    Use it as ``features=``: the reward is then a linear head on the encoder, and
    :func:`write_head` puts it back into the classifier, which trainers of language models take as
    a reward model.

    Parameters
    ----------
    model : torch.nn.Module
        Sequence classifier with one output, such as
        ``AutoModelForSequenceClassification.from_pretrained(name, num_labels=1)``.
    tokenizer : callable
        Its tokenizer.
    batch_size : int, default 32
        Texts encoded at a time.
    max_length : int, optional
        Longest text in tokens; the tokenizer's own limit when None.

    Raises
    ------
    MissingDependencyError
        PyTorch is not installed.
    ParameterError
        The model has no single linear layer with one output.

    Examples
    --------
    >>> encoder = TransformerEncoder(model, tokenizer)                         # doctest: +SKIP
    >>> reward = DeconfoundedReward(features=encoder).fit(logs, "y", text="t") # doctest: +SKIP
    >>> write_head(reward, model).save_pretrained("reward-model")              # doctest: +SKIP
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, batch_size: int = 32, max_length: int | None = None
    ) -> None:
        import_optional("torch", extra="torch")
        if batch_size < 1:
            raise ParameterError(f"batch_size={batch_size!r} must be at least 1.")
        find_head(model)
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.max_length = max_length

    def __call__(self, texts: list[str]) -> FloatArray:
        """Encode texts.

        Parameters
        ----------
        texts : list of str
            Texts.

        Returns
        -------
        numpy.ndarray of shape (n_texts, d)
            Input of the last layer.
        """
        torch = import_optional("torch", extra="torch")
        device = next(self.model.parameters()).device
        parts = []
        with without_head(self.model), torch.no_grad():
            for start in range(0, len(texts), self.batch_size):
                batch = self.tokenizer(
                    texts[start : start + self.batch_size], padding=True, truncation=True,
                    max_length=self.max_length, return_tensors="pt",
                )  # fmt: skip
                out = self.model(**{k: v.to(device) for k, v in batch.items()}).logits
                parts.append(out.to(torch.float64).cpu().numpy())
        return np.concatenate(parts)


def find_head(model: Any) -> tuple[str, Any]:
    """Name and module of the one linear layer with one output."""
    torch = import_optional("torch", extra="torch")
    heads = [
        (name, part)
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Linear) and part.out_features == 1
    ]
    if len(heads) != 1:
        raise ParameterError(
            f"the model {type(model).__name__} has {len(heads)} linear layers with one output; a "
            "reward needs exactly one: load a sequence classifier with num_labels=1."
        )
    return heads[0]


@contextmanager
def without_head(model: Any) -> Any:
    """The model in evaluation mode with the identity in place of its head."""
    torch = import_optional("torch", extra="torch")
    name, head = find_head(model)
    parent = model.get_submodule(name.rpartition(".")[0])
    training = model.training
    setattr(parent, name.rpartition(".")[2], torch.nn.Identity())
    model.eval()
    try:
        yield
    finally:
        setattr(parent, name.rpartition(".")[2], head)
        model.train(training)


def write_head(reward: Any, model: Any) -> Any:
    """Write a linear reward into the last layer of a sequence classifier.

    Parameters
    ----------
    reward : DeconfoundedReward
        Linear reward whose features are ``TransformerEncoder(model, ...)``.
    model : torch.nn.Module
        The classifier; changed in place.

    Returns
    -------
    torch.nn.Module
        The model: its output is ``reward.predict`` of the text, up to a constant where the last
        layer has no intercept (only differences of rewards are identified).

    Raises
    ------
    ParameterError
        The reward is not linear, or has another number of features than the last layer.

    Examples
    --------
    >>> write_head(reward, model).save_pretrained("reward-model")              # doctest: +SKIP
    """
    torch = import_optional("torch", extra="torch")
    check_is_fitted(reward)
    if not hasattr(reward, "coef_"):
        raise ParameterError('write_head needs a linear reward: learner="ridge".')
    _, head = find_head(model)
    if head.in_features != len(reward.coef_):
        raise ParameterError(
            f"write_head: the reward has {len(reward.coef_)} features and the last layer of "
            f"{type(model).__name__} takes {head.in_features}; fit the reward with "
            "features=TransformerEncoder(model, tokenizer)."
        )
    with torch.no_grad():
        head.weight.copy_(torch.as_tensor(reward.coef_)[None, :])
        if head.bias is not None:
            head.bias.fill_(-float(reward.mean_ @ reward.coef_))
    return model
