"""Attributes that the regression tables of ``maketables`` read, which is not needed for them."""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = ["TableHooks"]

COLUMNS = {
    "term": "Coefficient",
    "estimate": "b",
    "std_error": "se",
    "statistic": "t",
    "p_value": "p",
    "conf_low": "ci95l",
    "conf_high": "ci95u",
}


class TableHooks:
    """Columns, number of rows and kind of covariance, for whoever builds a table of models."""

    _vcov_kind: ClassVar[str] = "covariance"

    @property
    def __maketables_coef_table__(self) -> Any:
        frame: Any = self.to_frame()  # type: ignore[attr-defined]
        return frame.rename(columns=COLUMNS).set_index("Coefficient")

    def __maketables_stat__(self, key: str) -> Any:
        return getattr(self, "n_obs", None) if key == "N" else None

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        return ["N"] if hasattr(self, "n_obs") else []

    @property
    def __maketables_vcov_info__(self) -> dict[str, str]:
        clustered = getattr(self, "n_clusters", None) is not None
        return {"vcov_type": "clustered" if clustered else self._vcov_kind}
