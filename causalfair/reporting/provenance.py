"""Where a result comes from: versions, parameters, seeds and a fingerprint of the data."""

from __future__ import annotations

import hashlib
import html
import json
import math
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import metadata
from typing import Any

import numpy as np

from causalfair.exceptions import ParameterError
from causalfair.reporting._render import text_pairs
from causalfair.reporting.format import format_count, format_number
from causalfair.reporting.summary import Summary

__all__ = ["Provenance", "ProvenanceCheck"]

FORMAT = 1
_ALWAYS = ("causalfair", "numpy", "scipy", "scikit-learn", "pandas", "numba")
# Modules whose distribution has another name.
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow"}


@dataclass(frozen=True)
class ProvenanceCheck:
    """Outcome of comparing two provenance documents; true when they agree.

    Attributes
    ----------
    differences : tuple of str
        One sentence a difference, empty when the documents agree.
    """

    differences: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.differences

    def __str__(self) -> str:
        if not self.differences:
            return "Same provenance: versions, parameters, seed, folds and data agree."
        return "Provenance differs:\n" + "\n".join(f" - {text}" for text in self.differences)

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Provenance:
    """Everything needed to say how a result was made, and to check that it is the same one.

    Two fits with the same data, parameters, seed and versions give equal documents; only the wall
    time may differ, and it does not enter the comparison.

    Attributes
    ----------
    estimator : str
        Class, with its module.
    params : mapping
        Parameters; nested learners as their representation, arrays as shape and hash.
    versions : mapping
        Versions of Python, of the package, of what it stands on and of the learners' packages.
    seed : int or None
        Entropy of the root seed; ``None`` where nothing was random.
    spawn_key : tuple of int
        Position of the root seed under its entropy.
    folds : str or None
        Hash of the fold assignment; ``None`` where there are no folds.
    n : int
        Rows used.
    roles : mapping
        What each role was, by the name of the column or ``"array"``.
    fingerprint : str
        Hash of the bytes of the columns used.
    warnings : tuple of str
        Warnings raised during the fit.
    seconds : float
        Wall time of the fit; not compared.
    """

    estimator: str
    params: Mapping[str, Any]
    versions: Mapping[str, str]
    seed: int | None = None
    spawn_key: tuple[int, ...] = ()
    folds: str | None = None
    n: int = 0
    roles: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    warnings: tuple[str, ...] = ()
    seconds: float = field(default=math.nan, compare=False)

    @classmethod
    def of(cls, estimator: Any, record: Mapping[str, Any]) -> Provenance:
        """Describe a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            The fitted estimator.
        record : mapping
            What the fit wrote down: ``seed``, ``spawn_key``, ``fingerprint``, ``n``, ``roles``,
            ``warnings``, ``seconds`` and, where there are folds, ``folds``.

        Returns
        -------
        Provenance
            The document.
        """
        kind = type(estimator)
        params = estimator.get_params(deep=False)
        folds = record.get("folds")
        seed = record.get("seed")
        return cls(
            estimator=f"{kind.__module__}.{kind.__qualname__}",
            params={name: _plain(params[name]) for name in sorted(params)},
            versions=_versions(estimator),
            seed=None if seed is None else int(seed),
            spawn_key=tuple(int(key) for key in record.get("spawn_key") or ()),
            folds=None if folds is None else str(folds),
            n=int(record["n"]),
            roles={str(role): str(name) for role, name in record["roles"].items()},
            fingerprint=str(record["fingerprint"]),
            warnings=tuple(str(text) for text in record.get("warnings", ())),
            seconds=float(record.get("seconds", math.nan)),
        )

    def to_json(self) -> str:
        """Write the document as JSON.

        Returns
        -------
        str
            JSON with sorted keys; :meth:`from_json` reads it back.
        """
        content = {one.name: getattr(self, one.name) for one in fields(self)}
        content["seconds"] = None if math.isnan(self.seconds) else round(self.seconds, 3)
        return json.dumps({"format": FORMAT, **content}, indent=2, sort_keys=True, default=list)

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """Read a document written by :meth:`to_json`.

        Parameters
        ----------
        text : str
            The JSON text.

        Returns
        -------
        Provenance
            The document.

        Raises
        ------
        ParameterError
            The text is not JSON, or not a provenance document of a known format.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ParameterError(
                f"Provenance.from_json got text that is not JSON ({error}); pass what to_json() "
                f"returned."
            ) from error
        names = {one.name for one in fields(cls)}
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise ParameterError(
                f"Provenance.from_json reads format {FORMAT}, which this document does not state; "
                f"pass what to_json() returned."
            )
        if set(content) != names:
            odd = ", ".join(sorted(set(content) ^ names))
            raise ParameterError(f"Provenance.from_json: missing or unknown entries: {odd}.")
        seconds = content["seconds"]
        return cls(
            **{
                **content,
                "spawn_key": tuple(content["spawn_key"]),
                "warnings": tuple(content["warnings"]),
                "seconds": math.nan if seconds is None else float(seconds),
            }
        )

    def check(self, other: Any) -> ProvenanceCheck:
        """Say whether another fit is the one this document describes.

        Parameters
        ----------
        other : estimator or Provenance
            A fitted estimator, whose ``provenance()`` is compared, or a document.

        Returns
        -------
        ProvenanceCheck
            True when all but the wall time agrees; lists what differs otherwise.
        """
        theirs = other if isinstance(other, Provenance) else other.provenance()
        differences: list[str] = []
        for one in fields(self):
            if not one.compare:
                continue
            mine, yours = getattr(self, one.name), getattr(theirs, one.name)
            if isinstance(mine, Mapping):
                for name in sorted({*mine, *yours}):
                    _compare(f"{one.name}[{name!r}]", mine.get(name), yours.get(name), differences)
            else:
                _compare(one.name, mine, yours, differences)
        return ProvenanceCheck(tuple(differences))

    def _pairs(self) -> list[tuple[str, str]]:
        params = ", ".join(f"{name}={value!r}" for name, value in self.params.items())
        return [
            ("estimator", self.estimator),
            ("parameters", params or "none"),
            ("rows", format_count(self.n)),
            ("roles", ", ".join(f"{role} = {name}" for role, name in self.roles.items())),
            ("data fingerprint", self.fingerprint),
            ("folds", self.folds or "none"),
            (
                "seed",
                "none" if self.seed is None else "/".join(map(str, (self.seed, *self.spawn_key))),
            ),
            ("versions", ", ".join(f"{name} {text}" for name, text in self.versions.items())),
            ("wall time", f"{format_number(self.seconds, significant=3)} s"),
        ]

    def __str__(self) -> str:
        pairs = [*self._pairs(), *(("warning", text) for text in self.warnings)]
        return "\n".join(["Provenance", *(text_pairs([pair]) for pair in pairs)])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        summary = Summary("Provenance", self._pairs(), notes=self.warnings)
        source = html.escape(self.to_json())
        folded = f"<details><summary>JSON</summary><pre>{source}</pre></details>"
        return summary._repr_html_().removesuffix("\n</div>") + f"\n{folded}\n</div>"


def _compare(what: str, mine: Any, yours: Any, differences: list[str]) -> None:
    if mine != yours:
        differences.append(f"{what}: recorded {mine!r}, now {yours!r}")


def _plain(value: Any) -> Any:
    """Turn a parameter into something JSON can hold, without addresses and without data."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str | float):
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _described(value)


def _described(value: Any) -> str:
    """Describe an array by its hash, a function by its name, all else by its representation."""
    if isinstance(value, np.ndarray):
        digest = hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=8).hexdigest()
        return f"array(shape={value.shape}, dtype={value.dtype}, blake2b={digest})"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", re.sub(r"\s+", " ", repr(value)))


def _versions(estimator: Any) -> dict[str, str]:
    nested = estimator.get_params(deep=True).values()
    modules = {type(value).__module__.partition(".")[0] for value in nested}
    names = {_DISTRIBUTIONS.get(module, module) for module in modules - sys.stdlib_module_names}
    ordered = [*_ALWAYS, *sorted(names - {*_ALWAYS, "__main__"})]
    found = {"python": platform.python_version()}
    for name in ordered:
        version = _version(name)
        if version is not None:
            found[name] = version
    return found


def _version(distribution: str) -> str | None:
    if distribution == "causalfair":
        from causalfair import __version__

        return str(__version__)
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        # A learner defined in a script or in a package without metadata has no version to state.
        return None
