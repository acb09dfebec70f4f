"""Text features without a download: TF-IDF, a truncated SVD and a block of named style counts."""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from causalfair._core.random import int_seed, root_seed
from causalfair._core.typing import FloatArray, IntArray
from causalfair.exceptions import DataError, ParameterError

__all__ = ["TextFeaturizer", "as_texts", "normalize_text", "style_features", "text_codes"]

HASHED = 2**18

_SPACES = re.compile(r"\s+")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_PRONOUNS = {
    "pronoun_i": {"i", "me", "my", "mine", "i'm", "i've"},
    "pronoun_we": {"we", "us", "our", "ours", "we're", "we've"},
    "pronoun_you": {"you", "your", "yours", "you're", "you've"},
    "pronoun_he_she": {"he", "she", "him", "her", "his", "hers"},
    "pronoun_they": {"they", "them", "their", "theirs"},
}
STYLE_NAMES = (
    "tokens", "characters", "mean_word_length", "digits", "question_marks", "exclamation_marks",
    "quotes", "ellipses", "capitals_share", "all_caps_words", *_PRONOUNS, "has_url", "has_html",
    "type_token_ratio",
)  # fmt: skip


def normalize_text(text: str) -> str:
    r"""NFKC, HTML entities resolved, runs of white space collapsed.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        Normalised text; texts that are equal now are duplicates.

    Examples
    --------
    >>> normalize_text("Cats  &amp;\n dogs ")
    'Cats & dogs'
    """
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", html.unescape(text))).strip()


def as_texts(values: Any, *, owner: str) -> list[str]:
    """A list of texts; anything that is not text is refused by row."""
    if isinstance(values, str):
        return [values]
    texts = list(values)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"{owner}: text must be str; row {row} is {text!r} ({type(text).__name__}). "
                "Drop those rows or fill them in."
            )
    return texts


def text_codes(texts: Sequence[str]) -> IntArray:
    """Codes (n,) that are equal for equal normalised texts."""
    seen: dict[bytes, int] = {}
    codes = np.empty(len(texts), dtype=np.intp)
    for row, text in enumerate(texts):
        digest = hashlib.blake2b(normalize_text(text).encode(), digest_size=12).digest()
        codes[row] = seen.setdefault(digest, len(seen))
    return codes


def style_features(texts: Sequence[str]) -> FloatArray:
    """Named counts and shares of each text, in the order of ``STYLE_NAMES``.

    Parameters
    ----------
    texts : sequence of str
        Texts.

    Returns
    -------
    numpy.ndarray of shape (n_texts, 18)
        Counts, shares and flags.
    """
    out = np.empty((len(texts), len(STYLE_NAMES)))
    for row, text in enumerate(texts):
        out[row] = _style(text)
    return out


def _style(text: str) -> list[float]:
    words = _WORD.findall(text)
    lower = [word.lower().replace("’", "'") for word in words]
    letters = sum(map(len, words))
    n_words, size = max(len(words), 1), max(letters, 1)
    pronouns = [float(sum(word in group for word in lower)) for group in _PRONOUNS.values()]
    return [
        float(len(words)),
        float(len(text)),
        letters / n_words,
        float(sum(map(str.isdigit, text))),
        float(text.count("?")),
        float(text.count("!")),
        float(sum(map(text.count, "\"“”'‘"))),
        float(text.count("...") + text.count("…")),
        sum(map(str.isupper, text)) / size,
        float(sum(len(word) > 1 and word.isupper() for word in words)),
        *pronouns,
        float("http" in text or "www." in text),
        float("<" in text and ">" in text),
        len(set(lower)) / n_words,
    ]


class TextFeaturizer(TransformerMixin, BaseEstimator):
    """TF-IDF of words and pairs of words, reduced by a truncated SVD, plus named style features.

    The outcome is never used, so the representation needs no sample split of its own.

    Parameters
    ----------
    vectorizer : {"tfidf", "hashing"} or scikit-learn vectorizer, default "tfidf"
        Word 1-2-grams seen twice or more, or stateless hashing into 2**18 columns.
    characters : bool, default False
        Add n-grams of 2 to 5 characters inside words: for misspellings and rich inflection.
    n_components : int, default 128
        Columns kept of the SVD, at most a tenth of the number of texts.
    max_features : int, default 30,000
        Most frequent n-grams kept.
    svd_rows : int, default 50,000
        The SVD is learnt on at most so many texts and applied to all.
    style : bool, default True
        Add the named block: length, punctuation, capitals, pronouns.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the SVD and of its rows.

    Attributes
    ----------
    blocks_ : numpy.ndarray of str of shape (d,)
        ``"text"`` or ``"style"`` for each column.

    Examples
    --------
    >>> texts = ["You will love this!", "Markets fell", "Markets rose", "Will you love this?"] * 5
    >>> TextFeaturizer(n_components=2, random_state=0).fit_transform(texts).shape[0]
    20
    """

    def __init__(
        self,
        vectorizer: Any = "tfidf",
        *,
        characters: bool = False,
        n_components: int = 128,
        max_features: int = 30_000,
        svd_rows: int = 50_000,
        style: bool = True,
        random_state: Any = None,
    ) -> None:
        self.vectorizer = vectorizer
        self.characters = characters
        self.n_components = n_components
        self.max_features = max_features
        self.svd_rows = svd_rows
        self.style = style
        self.random_state = random_state

    def fit(self, X: Sequence[str], y: Any = None) -> TextFeaturizer:
        """Learn vocabulary and SVD.

        Parameters
        ----------
        X : sequence of str
            Texts.
        y : None
            Ignored.

        Returns
        -------
        TextFeaturizer
            Itself.
        """
        self.fit_transform(X, y)
        return self

    def fit_transform(self, X: Sequence[str], y: Any = None) -> FloatArray:  # noqa: ARG002
        """Learn vocabulary and SVD, and return the features.

        Parameters
        ----------
        X : sequence of str
            Texts.
        y : None
            Ignored.

        Returns
        -------
        numpy.ndarray of shape (n_texts, d)
            Features.
        """
        texts = [normalize_text(t) for t in as_texts(X, owner="TextFeaturizer.fit")]
        self.vectorizers_ = self._make_vectorizers(len(texts))
        try:
            counts = _stack([one.fit_transform(texts) for one in self.vectorizers_])
        except ValueError as error:
            raise DataError(
                f"TextFeaturizer.fit: {len(texts)} texts have no words in common ({error}); give "
                'more texts, embeddings (embedding=), or features="hashing".'
            ) from error
        reduced = self._fit_svd(counts)
        style = style_features(texts) if self.style else np.empty((len(texts), 0))
        self.style_kept_ = np.flatnonzero(np.ptp(style, axis=0) > 0) if style.size else np.arange(0)
        self.blocks_ = np.array(
            ["text"] * reduced.shape[1] + ["style"] * len(self.style_kept_), dtype=object
        )
        return np.ascontiguousarray(np.hstack([reduced, style[:, self.style_kept_]]))

    def _make_vectorizers(self, n: int) -> list[Any]:
        from sklearn.base import clone
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer

        if not isinstance(self.vectorizer, str):
            if self.characters:
                raise ParameterError(
                    "characters=True goes with vectorizer='tfidf' or 'hashing'; let your own "
                    "vectorizer make the character n-grams."
                )
            return [clone(self.vectorizer)]
        if self.vectorizer == "hashing":
            common: dict[str, Any] = {"n_features": HASHED, "alternate_sign": False}
            kind: Any = HashingVectorizer
        elif self.vectorizer == "tfidf":
            common = {
                "min_df": 2 if n > 2 else 1,
                "sublinear_tf": True,
                "max_features": self.max_features,
            }
            kind = TfidfVectorizer
        else:
            raise ParameterError(
                f"vectorizer={self.vectorizer!r} must be 'tfidf', 'hashing' or a vectorizer."
            )
        words = [kind(ngram_range=(1, 2), **common)]
        letters = [kind(analyzer="char_wb", ngram_range=(2, 5), **common)]
        return words + letters if self.characters else words

    def _fit_svd(self, counts: Any) -> FloatArray:
        from sklearn.utils.extmath import randomized_svd

        n, p = counts.shape
        root = root_seed(self.random_state)
        k = max(1, min(self.n_components, n // 10, p - 1))
        rows: Any = slice(None)
        if n > self.svd_rows:
            chosen = np.random.default_rng(root).choice(n, self.svd_rows, replace=False)
            rows = np.sort(chosen)
        _, _, components = randomized_svd(
            counts[rows], k, n_iter=4, random_state=int_seed(root, 1), flip_sign=True
        )
        largest = np.abs(components).argmax(axis=1)
        signs = np.sign(components[np.arange(k), largest])
        self.components_ = components * np.where(signs == 0, 1.0, signs)[:, None]
        reduced = np.asarray(counts @ self.components_.T)
        spread = float(np.sqrt(reduced.var(axis=0).mean()))
        self.scale_ = 1.0 / spread if spread > 0 else 1.0
        return reduced * self.scale_

    def transform(self, X: Sequence[str]) -> FloatArray:
        """Features of new texts.

        Parameters
        ----------
        X : sequence of str
            Texts.

        Returns
        -------
        numpy.ndarray of shape (n_texts, d)
            Features.
        """
        check_is_fitted(self, "components_")
        texts = [normalize_text(t) for t in as_texts(X, owner="TextFeaturizer.transform")]
        counts = _stack([one.transform(texts) for one in self.vectorizers_])
        reduced = np.asarray(counts @ self.components_.T) * self.scale_
        style = style_features(texts)[:, self.style_kept_] if self.style else reduced[:, :0]
        return np.ascontiguousarray(np.hstack([reduced, style]))

    def get_feature_names_out(self, input_features: Any = None) -> Any:  # noqa: ARG002
        """Names of the columns.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        numpy.ndarray of str
            ``svd0, svd1, ...`` and the names of the style features.
        """
        check_is_fitted(self, "components_")
        svd = [f"svd{j}" for j in range(len(self.components_))]
        return np.array([*svd, *(STYLE_NAMES[j] for j in self.style_kept_)], dtype=object)

    def ngram_contributions(self, text: str, coefficient: FloatArray) -> dict[str, float]:
        """What each n-gram of a text adds to ``features @ coefficient``.

        Parameters
        ----------
        text : str
            The text.
        coefficient : array of shape (d,)
            Coefficients of the features.

        Returns
        -------
        dict of str to float
            N-gram -> contribution; empty for the hashing vectorizer, which forgets its words.
        """
        check_is_fitted(self, "components_")
        if not all(hasattr(one, "get_feature_names_out") for one in self.vectorizers_):
            return {}
        row = _stack([one.transform([normalize_text(text)]) for one in self.vectorizers_])
        k = len(self.components_)
        weights = self.scale_ * (coefficient[:k] @ self.components_[:, row.indices])
        names = np.concatenate([one.get_feature_names_out() for one in self.vectorizers_])
        return dict(zip(map(str, names[row.indices]), map(float, row.data * weights), strict=True))


def _stack(blocks: list[Any]) -> Any:
    """Sparse blocks side by side."""
    from scipy import sparse

    return blocks[0].tocsr() if len(blocks) == 1 else sparse.hstack(blocks).tocsr()
