"""The package imports and fits with nothing optional installed; what is missing names its extra."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

OPTIONAL = ("matplotlib", "fairlearn", "zarr", "rasterio", "pooch", "torch")
OPTIONAL += ("sentence_transformers", "dask", "polars", "pyarrow", "duckdb", "maketables")

BLOCK = f"""
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_every_public_name_imports_without_extras():
    code = "import os; os.environ['EAGER_IMPORT'] = '1'; import causalfair; print('fine')"
    assert run(code) == "fine"


def test_estimates_and_tables_work_without_extras():
    code = """
import numpy as np
from causalfair.inference import InfluenceEstimates
y = np.random.default_rng(0).normal(size=100)
estimates = InfluenceEstimates([y.mean()], (y - y.mean())[:, None], ["mean"])
print(json.dumps(str(estimates.summary())))
"""
    assert "mean" in json.loads(run(code))


@pytest.mark.parametrize(
    ("call", "extra"),
    [("forest_plot(estimates)", "plot"), ("overlap_plot([0.2, 0.4], [0, 1])", "plot")],
)
def test_missing_extra_is_named(call, extra):
    code = f"""
from causalfair.exceptions import MissingDependencyError
from causalfair.inference import CovarianceEstimates
from causalfair.reporting import forest_plot, overlap_plot
estimates = CovarianceEstimates([1.0], [[1.0]], ["a"])
try:
    {call}
except MissingDependencyError as error:
    print(json.dumps(str(error)))
"""
    assert f'pip install "causalfair[{extra}]"' in json.loads(run(code))
