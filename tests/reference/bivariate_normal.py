"""Writes the two tables of the bivariate normal law by 40-digit quadrature; needs mpmath."""

from __future__ import annotations

import itertools
from pathlib import Path

import mpmath as mp
import numpy as np

HERE = Path(__file__).parent
FAR = [
    (-0.445, 0.319, -0.99999), (-4.733, -3.825, -0.9218752), (-1.211, -0.295, -0.996619),
    (-6.0, -5.0, 0.2), (-3.0, -3.0, -0.9), (-8.0, 8.0, 0.99), (-12.0, -3.0, 0.5),
    (-30.0, -30.0, 0.9),
]  # fmt: skip


def integral(h: float, k: float, rho: float) -> mp.mpf:
    """The integral of phi(u) Phi((k - rho u) / root) up to h, in panels that end at h."""
    h, k, rho = map(mp.mpf, (h, k, rho))
    root = mp.sqrt(1 - rho * rho)

    def integrand(u: mp.mpf) -> mp.mpf:
        return mp.exp(-u * u / 2) / mp.sqrt(2 * mp.pi) * mp.ncdf((k - rho * u) / root)

    near = [h - mp.mpf(10) ** (mp.mpf("1.6") - mp.mpf(i) * mp.mpf("9.6") / 60) for i in range(61)]
    bend = [k / rho + m * root / abs(rho) for m in (-12, -6, -3, -1, 0, 1, 3, 6, 12)]
    edges = sorted({*near, h, *(b for b in bend if -40 < b < h)})
    return sum(mp.quad(integrand, [a, b]) for a, b in itertools.pairwise(edges))


def main() -> None:
    mp.mp.dps = 40
    rng = np.random.default_rng(3)
    lines = ["h,k,rho,value"]
    for _ in range(120):
        h, k = rng.normal(size=2) * rng.choice([1, 3])
        near_one = rng.choice([-1, 1]) * (1 - 10 ** rng.uniform(-6, -1))
        rho = float(rng.choice([rng.uniform(-1, 1), near_one]))
        point = (round(h, 3), round(k, 3), round(rho, 7))
        lines.append(",".join([*map(str, point), mp.nstr(integral(*point), 20)]))
    (HERE / "bivariate_normal.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = ["h,k,rho,log_value"]
    lines += [",".join([*map(str, p), mp.nstr(mp.log(integral(*p)), 17)]) for p in FAR]
    (HERE / "bivariate_normal_log.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
