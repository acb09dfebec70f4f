"""Compiled loops over rows, cells and bootstrap replicates.

Every helper a kernel calls stands in this file, because a cached kernel does not notice changes in
other files. Sums over threads go through a fixed number of blocks added in order, so the bits do
not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

N_BLOCKS = 16


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def count_cells(codes, prediction, label, weight, radix, n_labels, counts):  # type: ignore[no-untyped-def]
    """Add the weight of each row to its cell; ``codes`` (n, m), ``counts`` (N_BLOCKS, n_cells).

    ``label`` and ``weight`` may have length 0. A code of -1 (missing) is the last level of its
    view.
    """
    n, m = codes.shape
    has_label = label.shape[0] > 0
    has_weight = weight.shape[0] > 0
    n_blocks = counts.shape[0]
    for block in prange(n_blocks):
        start = block * n // n_blocks
        stop = (block + 1) * n // n_blocks
        for i in range(start, stop):
            cell = np.int64(prediction[i])
            if has_label:
                cell = cell * n_labels + np.int64(label[i])
            for j in range(m):
                code = np.int64(codes[i, j])
                if code < 0:
                    code = radix[j] - 1
                cell = cell * radix[j] + code
            if has_weight:
                counts[block, cell] += weight[i]
            else:
                counts[block, cell] += 1.0


@njit(cache=True, nogil=True, error_model="numpy")
def _emission(pattern, tables, rows, T, emission):  # type: ignore[no-untyped-def]
    """Fill ``emission[a]`` with prod_j T_j[a, c_j] over the observed views; return its log scale.

    The product is rescaled when it falls below 1e-100, so that hundreds of views do not underflow.
    """
    n_groups = emission.shape[0]
    log_scale = 0.0
    for a in range(n_groups):
        emission[a] = 1.0
    for j in range(pattern.shape[0]):
        level = pattern[j]
        if level < 0:
            continue
        table = tables[j]
        largest = 0.0
        for a in range(n_groups):
            emission[a] *= T[table, rows[j, a], level]
            largest = max(largest, emission[a])
        if 0.0 < largest < 1e-100:
            for a in range(n_groups):
                emission[a] *= 1e100
            log_scale -= 100.0 * np.log(10.0)
    return log_scale


@njit(cache=True, nogil=True, error_model="numpy")
def em_step(  # type: ignore[no-untyped-def]
    counts, patterns, tables, rows, fixed, shares, prior_g, prior_t, G, T, new_g, new_t
):
    """One EM update of (G, T) on the cells; returns the (penalised) log-likelihood at the input.

    counts (S, P); patterns (P, m); tables (S, m): table used by view j in stratum s; rows (m, K):
    row
    of the table used by class a; fixed (R,): tables that are known; shares: (K,) known group shares
    or length 0; G (S, K); T (R, K_max, L_max).
    """
    n_strata, n_patterns = counts.shape
    n_groups = G.shape[1]
    m = patterns.shape[1]
    emission = np.empty(n_groups)
    weight = np.zeros(n_groups)
    loglik = 0.0
    new_g[:, :] = 0.0
    new_t[:, :, :] = 0.0
    for c in range(n_patterns):
        log_scale = 0.0
        for s in range(n_strata):
            fresh = s == 0
            if not fresh:
                for j in range(m):
                    if tables[s, j] != tables[s - 1, j]:
                        fresh = True
            if fresh:
                log_scale = _emission(patterns[c], tables[s], rows, T, emission)
            if counts[s, c] > 0.0:
                q = 0.0
                for a in range(n_groups):
                    q += G[s, a] * emission[a]
                loglik += counts[s, c] * (np.log(q) + log_scale)
                ratio = counts[s, c] / q
                for a in range(n_groups):
                    share = G[s, a] * emission[a] * ratio
                    new_g[s, a] += share
                    weight[a] += share
            last = s == n_strata - 1
            if not last:
                for j in range(m):
                    if tables[s + 1, j] != tables[s, j]:
                        last = True
            if last:
                for j in range(m):
                    if patterns[c, j] >= 0 and not fixed[tables[s, j]]:
                        for a in range(n_groups):
                            new_t[tables[s, j], rows[j, a], patterns[c, j]] += weight[a]
                for a in range(n_groups):
                    weight[a] = 0.0
    loglik += _normalise(fixed, shares, prior_g, prior_t, G, T, new_g, new_t)
    return loglik


@njit(cache=True, nogil=True, error_model="numpy")
def _normalise(fixed, shares, prior_g, prior_t, G, T, new_g, new_t):  # type: ignore[no-untyped-def]
    """Turn expected counts into probabilities in place; return the log prior at (G, T)."""
    n_strata, n_groups = G.shape
    n_tables, n_rows, n_levels = T.shape
    log_prior = 0.0
    total = 0.0
    for s in range(n_strata):
        for a in range(n_groups):
            if prior_g > 0.0:
                log_prior += prior_g * np.log(G[s, a])
            new_g[s, a] += prior_g
            total += new_g[s, a]
    for a in range(n_groups):
        scale = total
        if shares.shape[0] > 0:
            column = 0.0
            for s in range(n_strata):
                column += new_g[s, a]
            scale = column / shares[a] if column > 0.0 else 1.0
        for s in range(n_strata):
            new_g[s, a] /= scale
    for r in range(n_tables):
        for a in range(n_rows):
            row = 0.0
            if not fixed[r]:
                for b in range(n_levels):
                    if prior_t[r, a, b] > 0.0:
                        log_prior += prior_t[r, a, b] * np.log(T[r, a, b])
                    new_t[r, a, b] += prior_t[r, a, b]
                    row += new_t[r, a, b]
            for b in range(n_levels):
                # a fixed table, or a class nobody is in, keeps its row
                new_t[r, a, b] = new_t[r, a, b] / row if row > 0.0 else T[r, a, b]
    return log_prior


@njit(cache=True, nogil=True, error_model="numpy")
def _squarem_length(x):  # type: ignore[no-untyped-def]
    """Sums of squares of r = x1 - x0 and v = x2 - x1 - r over one array of points (4, ...)."""
    flat = x.reshape(4, -1)
    rr = 0.0
    vv = 0.0
    for i in range(flat.shape[1]):
        r = flat[1, i] - flat[0, i]
        v = flat[2, i] - flat[1, i] - r
        rr += r * r
        vv += v * v
    return rr, vv


@njit(cache=True, nogil=True, error_model="numpy")
def _extrapolate_one(x, step):  # type: ignore[no-untyped-def]
    """Write x0 - 2 step r + step^2 v into point 3; False when an entry leaves the simplex."""
    flat = x.reshape(4, -1)
    for i in range(flat.shape[1]):
        r = flat[1, i] - flat[0, i]
        v = flat[2, i] - flat[1, i] - r
        flat[3, i] = flat[0, i] - 2.0 * step * r + step * step * v
        if flat[3, i] < 0.0:
            return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _extrapolate(Gs, Ts):  # type: ignore[no-untyped-def]
    """SQUAREM (Varadhan & Roland 2008, scheme S3): step -|r| / |v|, halved until in the simplex.

    Fills point 3 of both arrays; False when the step is not longer than EM's own.
    """
    g_rr, g_vv = _squarem_length(Gs)
    t_rr, t_vv = _squarem_length(Ts)
    if g_vv + t_vv == 0.0:
        return False
    step = -np.sqrt((g_rr + t_rr) / (g_vv + t_vv))
    while step < -1.0001:
        if _extrapolate_one(Gs, step) and _extrapolate_one(Ts, step):
            return True
        step = 0.5 * (step - 1.0)
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def _copy(source, target):  # type: ignore[no-untyped-def]
    """Copy one array; a loop compiles faster than slice assignment."""
    from_flat = source.reshape(-1)
    to_flat = target.reshape(-1)
    for i in range(from_flat.shape[0]):
        to_flat[i] = from_flat[i]


@njit(cache=True, nogil=True, error_model="numpy")
def em_fit(  # type: ignore[no-untyped-def]
    counts, patterns, tables, rows, fixed, shares, prior_g, prior_t, G, T, max_iter, tol
):
    """Run EM with SQUAREM acceleration in place; returns (log-likelihood, EM steps, converged).

    A cycle is two EM steps, 0 -> 1 -> 2, and one from the extrapolated point 3, whose image counts
    only when the point lies in the simplex and does not lower the likelihood. Stops when one cycle
    gains less than ``tol`` times the total count. The points stand in one array and the step is
    called in one place, because every call is compiled anew.
    """
    enough = tol * counts.sum()
    Gs = np.empty((4, *G.shape))
    Ts = np.empty((4, *T.shape))
    _copy(G, Gs[0])
    _copy(T, Ts[0])
    start, first, second, beyond = 0, 1, 2, 3
    source, target = start, first
    previous, ll0, ll1 = -np.inf, 0.0, 0.0
    steps = 0
    converged = False
    last = max_iter <= 0
    while True:
        loglik = em_step(
            counts, patterns, tables, rows, fixed, shares, prior_g, prior_t,
            Gs[source], Ts[source], Gs[target], Ts[target],
        )  # fmt: skip
        if last:
            break
        steps += 1
        kept = -1
        if source == start:
            ll0 = loglik
            source, target = first, second
        elif source == first:
            ll1 = loglik
            converged = abs(ll1 - ll0) <= enough and abs(ll0 - previous) <= enough
            previous = ll1
            kept = second
            if not converged and _extrapolate(Gs, Ts):
                source, target, kept = beyond, first, -1
        elif loglik >= ll1:
            previous = loglik
            kept = first
        else:
            kept = second
        if kept >= 0:
            _copy(Gs[kept], Gs[start])
            _copy(Ts[kept], Ts[start])
            source, target = start, first
            last = converged or steps >= max_iter
    _copy(Gs[start], G)
    _copy(Ts[start], T)
    return loglik, steps, converged


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def bootstrap_fits(  # type: ignore[no-untyped-def]
    counts,
    patterns,
    tables,
    rows,
    fixed,
    shares,
    prior_g,
    prior_t,
    G,
    T,
    max_iter,
    tol,
    out_g,
    out_t,
    out_ll,
):
    """Refit every replicate from (G, T); counts (B, S, P), out_g (B, S, K), out_t (B, R, K, L).

    ``prior_t`` (B or 1, R, K, L): validation counts are resampled too.
    """
    for b in prange(counts.shape[0]):
        _copy(G, out_g[b])
        _copy(T, out_t[b])
        loglik, _, _ = em_fit(
            counts[b],
            patterns,
            tables,
            rows,
            fixed,
            shares,
            prior_g,
            prior_t[b % prior_t.shape[0]],
            out_g[b],
            out_t[b],
            max_iter,
            tol,
        )
        out_ll[b] = loglik


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def outcome_step(prior, outcome, area, weight, theta, member, expected):  # type: ignore[no-untyped-def]
    """E-step of the outcome-regression EM by rows; returns the log-likelihood.

    prior (n, K); outcome, area (n,); weight (n,); theta (n_areas, K, n_outcomes); fills ``member``
    (n, K) and the expected counts ``expected`` (N_BLOCKS, n_areas, K, n_outcomes).
    """
    n, n_groups = prior.shape
    n_blocks = expected.shape[0]
    partial = np.zeros(n_blocks)
    for block in prange(n_blocks):
        start = block * n // n_blocks
        stop = (block + 1) * n // n_blocks
        loglik = 0.0
        for i in range(start, stop):
            x = area[i]
            o = outcome[i]
            total = 0.0
            for a in range(n_groups):
                member[i, a] = theta[x, a, o] * prior[i, a]
                total += member[i, a]
            loglik += weight[i] * np.log(total)
            for a in range(n_groups):
                member[i, a] /= total
                expected[block, x, a, o] += weight[i] * member[i, a]
        partial[block] = loglik
    result = 0.0
    for block in range(n_blocks):
        result += partial[block]
    return result


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def soft_third_moment(q1, q2, q3, stratum, weight, out):  # type: ignore[no-untyped-def]
    """Sum of q1 (x) q2 (x) q3 by stratum; q (n, K), out (N_BLOCKS, S, K, K, K)."""
    n, n_groups = q1.shape
    n_blocks = out.shape[0]
    for block in prange(n_blocks):
        start = block * n // n_blocks
        stop = (block + 1) * n // n_blocks
        for i in range(start, stop):
            s = stratum[i]
            for a in range(n_groups):
                left = weight[i] * q1[i, a]
                for b in range(n_groups):
                    pair = left * q2[i, b]
                    for c in range(n_groups):
                        out[block, s, a, b, c] += pair * q3[i, c]
