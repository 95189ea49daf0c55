"""What a step of `memspan.memory.infinity_former` does with its signals, on a CPU.

B rows, D width, H heads, J basis functions, C steps of a chunk, P points at which an old signal is sampled.
"""

import math
from typing import Any

import numpy as np
from numba import njit

from memspan.memory.fast_exp import F32, exp, sigmoid
from memspan.memory.few_rows_kernel import FAST, Floats, Longs, linear
from memspan.memory.slot_kernel import Bools

FAR = 10
"""Widths from its centre beyond which a basis function is 0: below e ** -50."""


@njit(error_model="numpy", fastmath=FAST)
def add_rows(weights: Floats, rows: Floats, out: Floats) -> None:
    """Adds weighted rows (n, D) to `out` (D,)."""
    for i in range(weights.size):
        by, row = weights[i], rows[i]
        for d in range(out.size):
            out[d] += by * row[d]


@njit(error_model="numpy", fastmath=FAST)
def density(
    score: Floats, mean_weight: Floats, mean_bias: Any, variance_weight: Floats, variance_bias: Any
) -> tuple[Any, Any]:
    """Mean and variance of a head whose query scores the basis functions (J,) like this."""
    mean, variance = mean_bias, variance_bias
    for j in range(score.size):
        mean += mean_weight[j] * score[j]
        variance += variance_weight[j] * score[j]
    # As torch's softplus, which is the identity beyond 20.
    positive = variance if variance > F32(20) else np.log1p(np.exp(variance))
    return sigmoid(mean), positive


@njit(error_model="numpy", fastmath=FAST)
def expect(mean: Any, variance: Any, centres: Floats, width: Any, out: Floats) -> None:
    """As `memspan.memory.continuous_signal.ContinuousSignal.expectation`, (J,)."""
    both = variance + width * width
    scale, by = width / np.sqrt(both), F32(-0.5) / both
    for j in range(out.size):
        out[j] = scale * exp(by * (mean - centres[j]) * (mean - centres[j]))


@njit(error_model="numpy", fastmath=FAST)
def add_mass(mean: Any, variance: Any, edges: Floats, out: Floats) -> None:
    """As `memspan.memory.continuous_signal.ContinuousSignal.mass`, added to what there is (J,)."""
    by = F32(1) / np.sqrt(F32(2) * variance)
    before = math.erf((edges[0] - mean) * by)
    for j in range(out.size):
        now = math.erf((edges[j + 1] - mean) * by)
        out[j] += F32(0.5) * (now - before)
        before = now


@njit(cache=True, error_model="numpy", fastmath=FAST)
def read_signals(
    x: Floats,
    u: Floats,
    signal: Floats,
    mass: Floats,
    steps: Longs,
    starts: Bools,
    memory_size: int,
    chunk: int,
    query: Floats,
    query_bias: Floats,
    key: Floats,
    value: Floats,
    out_weight: Floats,
    mean_weight: Floats,
    mean_bias: Floats,
    variance_weight: Floats,
    variance_bias: Floats,
    centres: Floats,
    edges: Floats,
    basis_width: float,
    smallest_variance: float,
    out: Floats,
    after: Longs,
) -> bool:
    """Adds to a layer's input what it reads of its signals.

    Args:
        x: (B, D) input.
        u: (B, D) `normalise(x)`.
        signal: (B, J, D), cleared in place where an episode starts.
        mass: (B, J), or (B, 0): likewise; what is read is noted.
        steps: (B,) of the episode before the step.
        starts: (B,) where an episode starts.
        memory_size: M.
        chunk: C.
        query: (D, D), and so on: weights of `memspan.memory.infinity_former.SignalAttention`.
        query_bias: (D,).
        key: (D, D).
        value: (D, D).
        out_weight: (D, D).
        mean_weight: (H, J).
        mean_bias: (H,).
        variance_weight: (H, J).
        variance_bias: (H,).
        centres: (J,) of basis functions.
        edges: (J + 1,) of bins.
        basis_width: of a basis function.
        smallest_variance: added to variances.
        out: (B, D) written.
        after: (B,) written: steps of the episode after the step.

    Returns:
        Whether there is a row whose signal has to be changed now, see `append_chunks`.
    """
    n_heads, n_basis = mean_weight.shape
    head, number = x.shape[1] // n_heads, x.dtype.type
    width, scale = number(basis_width), number(1 / math.sqrt(head))
    q, asked, what = np.empty_like(query_bias), np.empty_like(query_bias), np.empty_like(query_bias)
    score = np.empty(n_basis, x.dtype)
    due = False
    for b in range(len(x)):
        if starts[b]:
            signal[b] = F32(0)
            mass[b] = F32(0)
        step = 0 if starts[b] else steps[b]
        after[b] = step + 1
        due |= step >= memory_size and (step - memory_size) % chunk == 0
        out[b] = x[b]
        if step <= memory_size:
            continue
        linear(u[b], query, query_bias, q)
        for i in range(q.size):
            q[i] *= scale
        for h in range(n_heads):
            these = slice(h * head, (h + 1) * head)
            asked[:] = F32(0)
            add_rows(q[these], key[these], asked)
            linear(asked, signal[b], asked[:0], score)
            mean, variance = density(
                score, mean_weight[h], mean_bias[h], variance_weight[h], variance_bias[h]
            )
            variance += number(smallest_variance)
            if mass.size:
                add_mass(mean, variance, edges, mass[b])
            expect(mean, variance, centres, width, score)
            what[:] = F32(0)
            add_rows(score, signal[b], what)
            linear(what, value[these], what[:0], q[these])
        linear(q, out_weight, q[:0], what)
        for i in range(what.size):
            out[b, i] += what[i]
    return due


@njit(error_model="numpy", fastmath=FAST)
def quantiles(mass: Floats, spread: Any, wanted: Floats, out: Floats) -> None:
    """As `memspan.memory.continuous_signal.ContinuousSignal.quantiles` of mass (J,), at places (P,): (P,)."""
    n_basis = mass.size
    total = F32(0)
    for j in range(n_basis):
        total += mass[j]
    even, rest = spread / mass.dtype.type(n_basis), F32(1) - spread
    j, share = 0, rest * mass[0] / total + even
    below = share
    for p in range(wanted.size):
        while j < n_basis - 1 and below < wanted[p]:
            j += 1
            share = rest * mass[j] / total + even
            below += share
        place = mass.dtype.type(j + 1) - (below - wanted[p]) / share
        out[p] = place / mass.dtype.type(n_basis)


@njit(error_model="numpy", fastmath=FAST)
def sample(at: Floats, signal: Floats, centres: Floats, width: Any, out: Floats) -> None:
    """A signal (J, D) at places (P,): (P, D)."""
    for p in range(at.size):
        out[p] = F32(0)
        for j in range(centres.size):
            away = (at[p] - centres[j]) / width
            if away > F32(FAR) or away < F32(-FAR):
                continue
            by, row, point = exp(F32(-0.5) * away * away), signal[j], out[p]
            for d in range(point.size):
                point[d] += by * row[d]


@njit(cache=True, error_model="numpy", fastmath=FAST)
def append_chunks(
    hidden: Floats,
    age: Longs,
    signal: Floats,
    mass: Floats,
    after: Longs,
    memory_size: int,
    centres: Floats,
    places: Floats,
    fit_first: Floats,
    fit_old: Floats,
    fit_new: Floats,
    contract: Floats,
    basis_width: float,
    spread: float,
) -> None:
    """Appends the oldest steps of the window to the signals of those rows in which it is time.

    Args:
        hidden: (B, S, D) slots.
        age: (B, S) as the last step before this one left them.
        signal: (B, J, D) written in place.
        mass: (B, J) likewise: 0 afterwards; (B, 0): parts of the signal are equal.
        after: (B,) steps of the episode, this one included.
        memory_size: M.
        centres: (J,) and so on: of `memspan.memory.continuous_signal.ContinuousSignal`.
        places: (P,).
        fit_first: (J, C).
        fit_old: (J, P).
        fit_new: (J, C).
        contract: (J, J).
        basis_width: of a basis function.
        spread: share of the points that stays evenly spread.
    """
    n_basis, chunk = fit_new.shape
    number = signal.dtype.type
    new, before = np.empty((chunk, signal.shape[2]), signal.dtype), np.empty_like(signal[0])
    points, at = np.empty((places.size, signal.shape[2]), signal.dtype), np.empty_like(places)
    for b in range(len(age)):
        beyond = after[b] - 1 - memory_size
        if beyond < 0 or beyond % chunk:
            continue
        for s in range(age.shape[1]):
            # Of the window's M steps that was the first whose age is now M - 1.
            k = memory_size - 1 - age[b, s]
            if age[b, s] >= 0 and 0 <= k < chunk:
                new[k] = hidden[b, s]
        before[:] = signal[b]
        signal[b] = F32(0)
        if beyond and mass.size:
            quantiles(mass[b], number(spread), places, at)
            sample(at, before, centres, number(basis_width), points)
        for j in range(n_basis):
            if beyond and mass.size:
                add_rows(fit_old[j], points, signal[b, j])
            elif beyond:
                add_rows(contract[j], before, signal[b, j])
            add_rows(fit_new[j] if beyond else fit_first[j], new, signal[b, j])
        mass[b] = F32(0)
