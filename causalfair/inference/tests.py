"""A test result that states its null."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HypothesisTest"]


@dataclass(frozen=True, slots=True)
class HypothesisTest:
    """Result of one hypothesis test.

    Attributes
    ----------
    name : str
        Name of the test.
    null : str
        The hypothesis tested, in words.
    statistic : float
        Value of the statistic; NaN where the test does not apply.
    p_value : float
        P-value; NaN where the test does not apply.
    df : float or tuple of float, optional
        Degrees of freedom.
    distribution : str
        Reference law: ``"chi2"``, ``"normal"``, ``"t"``, ``"F"``, ``"bootstrap"``.
    reason : str, optional
        Why the test does not apply.

    Examples
    --------
    >>> HypothesisTest("Wald", "ATE = 0", 4.2, 0.040, df=1)
    Wald test of ATE = 0: chi2(1) = 4.20, p = 0.040
    """

    name: str
    null: str
    statistic: float
    p_value: float
    df: float | tuple[float, float] | None = None
    distribution: str = "chi2"
    reason: str | None = None

    def __str__(self) -> str:
        if self.reason is not None:
            return f"{self.name} test of {self.null}: does not apply, {self.reason}"
        freedom = "" if self.df is None else f"({_plain(self.df)})"
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        return (
            f"{self.name} test of {self.null}: {self.distribution}{freedom} = "
            f"{self.statistic:.2f}, {p}"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(str(self))}</p>"


def _plain(df: float | tuple[float, float]) -> str:
    return ", ".join(f"{d:g}" for d in df) if isinstance(df, tuple) else f"{df:g}"
