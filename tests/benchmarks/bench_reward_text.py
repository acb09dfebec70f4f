"""From raw strings to a fitted, ranked reward: 200,000 texts, two circumstances.

Run with ``nox -s bench`` or ``pytest tests/benchmarks/bench_reward_text.py --benchmark-only``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from causalfair.reward import DeconfoundedReward, TextFeaturizer, make_pairs

SECTIONS, AUTHORS = 50, 5_000


def logs(n: int) -> pd.DataFrame:
    """Texts of 6 to 15 words from a Zipf vocabulary of 20,000; sections lean on a marker."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(
        ["".join(rng.choice(letters, size)) for size in rng.integers(2, 11, 20_000)], dtype=object
    )
    weight = 1 / np.arange(1, 20_001)
    lengths = rng.integers(6, 16, n)
    drawn = rng.choice(20_000, size=lengths.sum(), p=weight / weight.sum())
    section, author = rng.integers(0, SECTIONS, n), rng.integers(0, AUTHORS, n)
    marker = rng.random(n) < 0.2 + 0.6 * section / SECTIONS
    texts = [
        " ".join(words[part]).capitalize() + (" shock!" if mark else ".")
        for part, mark in zip(np.split(drawn, np.cumsum(lengths)[:-1]), marker, strict=True)
    ]
    y = -0.4 * marker + 3 * section / SECTIONS + rng.normal(size=n)
    return pd.DataFrame({"text": texts, "section": section, "author": author, "y": y})


def run(n: int) -> dict[str, float]:
    """Fit and rank ``n`` texts; seconds, peak memory and what was learnt about the marker."""
    import resource

    frame = logs(n)
    warm = frame.iloc[:2_000]
    DeconfoundedReward(random_state=0).fit(  # compile, or load, the kernels
        warm, "y", text="text", categorical=["section", "author"]
    )
    wall, cpu = time.perf_counter(), time.process_time()
    reward = DeconfoundedReward(random_state=0)
    reward.fit(frame, "y", text="text", categorical=["section", "author"])
    fitted = time.process_time()
    ranked = reward.rank(frame["text"].tolist(), n_draws=100)
    assert len(ranked) == n
    gap = reward.contrast("Plain words shock!", "Plain words.")
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "cpu of fit": fitted - cpu,
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "marker": float(gap.estimate[0]),
    }


def test_two_hundred_thousand_texts(benchmark):
    """In a process of its own, so that the peak of memory is this one's."""
    code = f"import json; from {__name__.rpartition('.')[2]} import run; print(json.dumps(run(200_000)))"
    found = {}

    def once():
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            cwd=__file__.rpartition("/")[0],
        )  # fmt: skip
        found.update(json.loads(done.stdout.splitlines()[-1]))

    benchmark.pedantic(once, rounds=1, iterations=1)
    benchmark.extra_info.update(found)
    assert found["cpu"] < 60  # one busy core, so that a loaded machine judges alike
    assert found["peak MB"] < 4096
    assert found["marker"] < 0


@pytest.mark.parametrize("n", [10_000, 100_000])
def test_featurizer(benchmark, n):
    texts = logs(n)["text"].tolist()
    benchmark.pedantic(
        lambda: TextFeaturizer(random_state=0).fit_transform(texts), rounds=1, iterations=1
    )


def test_pairs(benchmark):
    """Strata of a hundred: a million candidate pairs, thinned in compiled code."""
    rng = np.random.default_rng(0)
    n = 200_000
    score, strata = rng.normal(size=n), rng.integers(0, n // 100, n)
    texts = [f"t{i}" for i in range(n)]
    make_pairs(score[:100], np.ones(100), strata[:100], texts[:100])
    benchmark.pedantic(make_pairs, args=(score, np.ones(n), strata, texts), rounds=2, iterations=1)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)) + "\n")
