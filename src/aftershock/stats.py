"""What may be claimed from samples: pass@k, majority vote, 95% intervals clustered by problem, exact paired tests."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054  # the standard normal's 97.5% point


@dataclass(frozen=True)
class Interval:
    """A measured value with its 95% interval; `n` values from `problems` problems stand behind it."""

    value: float
    low: float
    high: float
    n: int
    problems: int


@dataclass(frozen=True)
class Measurement:
    """One number of a model: which `metric` on which `suite`, its 95% interval, n problems, k samples, the seed."""

    suite: str
    metric: str
    when: str
    value: float
    low: float
    high: float
    n: int
    k: int
    seed: int


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased chance that at least one of `k` samples is right, from `c` right among `n` drawn.

    Chen et al. 2021 (arXiv 2107.03374), eq. 1: 1 - C(n-c, k) / C(n, k), as a product so that nothing overflows.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass_at_k wants 0 <= c <= n and 1 <= k <= n, had n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def majority(answers: Sequence[str | None], rights: Sequence[bool]) -> float:
    """Return the accuracy of a majority vote among the samples of one problem, in [0, 1].

    None is a sample without an answer: it has no vote. Where answers tie, each is taken to win equally often, so the
    result is the share of right ones among them: no draw of lots, and no favour to the order. No votes at all give 0.
    Answers that count as one another (`1/2` and `0.5`) must be made equal before.
    """
    if len(answers) != len(rights):
        raise ValueError(f"majority wants one right or wrong an answer, had {len(answers)} and {len(rights)}")
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    right_votes = Counter(answer for answer, right in zip(answers, rights) if answer is not None and right)
    winners = [answer for answer, count in votes.items() if count == most]
    return sum(right_votes[answer] / most for answer in winners) / len(winners)


def majority_at_k(answers: Sequence[str | None], rights: Sequence[bool], k: int) -> float:
    """Return the mean accuracy of majority votes of `k`, over the n // k disjoint groups of samples in their order.

    The samples of one problem are exchangeable, so this is unbiased for a vote of k; a rest of n % k is left out.
    """
    if not 1 <= k <= len(answers):
        raise ValueError(f"majority_at_k wants 1 <= k <= number of samples, had k={k}, samples={len(answers)}")
    starts = range(0, len(answers) - k + 1, k)
    votes = [majority(answers[start : start + k], rights[start : start + k]) for start in starts]
    return sum(votes) / len(votes)


def wilson(successes: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's score interval of a share (Wilson 1927); `n` may be an effective, fractional sample size.

    >>> tuple(round(bound, 4) for bound in wilson(0, 10))
    (0.0, 0.2775)
    """
    if not (n > 0 and 0 <= successes <= n):
        raise ValueError(f"wilson wants 0 <= successes <= n and n > 0, had {successes} of {n}")
    share = successes / n
    scale = 1.0 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return (0.0 if share == 0 else max(0.0, centre - half)), (1.0 if share == 1 else min(1.0, centre + half))


def mean_interval(values_by_problem: Sequence[Sequence[float]]) -> Interval:
    """Return the mean over all samples and its 95% interval, clustered by problem; problems without samples drop out.

    Samples of one problem resemble one another, so the variance is the cluster-robust one (Liang and Zeger 1986, with
    the factor G / (G - 1) and Student's t for G problems). Values that all lie in [0, 1] are shares: they get Wilson's
    interval at the effective sample size p(1 - p) / variance (Korn and Graubard 1998), never more than the number of
    samples and, where every sample says the same, the number of problems; so 0% and 100% have an honest width.
    Anything else gets mean +- t x standard error; with one problem its samples are then taken as independent.
    """
    clusters = [list(values) for values in values_by_problem if len(values)]
    if not clusters:
        raise ValueError("mean_interval wants at least one value, had none")
    total = sum(len(values) for values in clusters)
    mean = math.fsum(value for values in clusters for value in values) / total
    if all(0 <= value <= 1 for values in clusters for value in values):
        low, high = _share_bounds(clusters, mean, total)
    else:
        low, high = _mean_bounds(clusters if len(clusters) > 1 else [[value] for value in clusters[0]], mean, total)
    return Interval(mean, min(low, mean), max(high, mean), total, len(clusters))


def paired_interval(differences: Sequence[float]) -> Interval:
    """Return the mean of one difference in [-1, 1] a problem, and its 95% interval.

    The bounds are Student's over the problems and two made-up ones, one for each model, as far apart as those that
    differ are in the root mean square (1 if none differs). Where every difference is -1, 0 or 1 that is Bonett and
    Price's interval of paired shares (2012), which keeps an honest width where nothing differs.
    """
    if not differences or not all(-1 <= value <= 1 for value in differences):
        raise ValueError(f"paired_interval wants differences in [-1, 1], had {list(differences)}")
    total, differing = math.fsum(differences), [value for value in differences if value]
    usual = math.hypot(*differing) / math.sqrt(len(differing)) if differing else 1.0
    padded = [[value] for value in (*differences, usual, -usual)]
    low, high = _mean_bounds(padded, total / len(padded), len(padded))
    mean, n = total / len(differences), len(differences)
    return Interval(mean, max(-1.0, min(low, mean)), min(1.0, max(high, mean)), n, n)


def ratio_interval(pairs: Sequence[tuple[float, float]]) -> Interval:
    """Return the sum of the first over the sum of the second, one pair of non-negative values a problem, at 95%.

    By the delta method (Cochran 1977, 6.4): Student's t over the problems' residuals a - ratio * b.
    """
    below = math.fsum(b for _, b in pairs)
    if below <= 0:
        raise ValueError("ratio_interval wants a sum above 0 to divide by")
    ratio = math.fsum(a for a, _ in pairs) / below
    residuals = [[(a - ratio * b) * len(pairs) / below] for a, b in pairs]
    low, high = _mean_bounds(residuals, 0.0, len(pairs))
    return Interval(ratio, max(0.0, ratio + low), ratio + high, len(pairs), len(pairs))


def level_interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent values that are means themselves, such as those of steps, by Student's t at 95%.

    Unlike `mean_interval` it takes values in [0, 1] for no shares of single answers.
    """
    mean = math.fsum(values) / len(values)
    return Interval(mean, *_mean_bounds([[value] for value in values], mean, len(values)), len(values), len(values))


def shift_interval(before: Sequence[float], after: Sequence[float]) -> Interval:
    """Return how far the mean moved from `before` to `after`, at least two values each, at 95%.

    Welch's interval, cautiously with the fewer values' degrees of freedom.
    """
    parts, n = [level_interval(part) for part in (before, after)], len(before) + len(after)
    errors = [(part.high - part.value) / _t95(part.n - 1) for part in parts]
    half = _t95(min(part.n for part in parts) - 1) * math.hypot(*errors)
    moved = parts[1].value - parts[0].value
    return Interval(moved, moved - half, moved + half, n, n)


def mcnemar(won: int, lost: int) -> float:
    """Return the exact two-sided p of `won` against `lost` problems, those on which two models differ (McNemar 1947).

    >>> mcnemar(6, 0), mcnemar(3, 3)
    (0.03125, 1.0)
    """
    tail = sum(math.comb(won + lost, i) for i in range(min(won, lost) + 1))
    return min(1.0, tail * 2 / 2 ** (won + lost))


def sign_flip(differences: Sequence[int]) -> float:
    """Return the exact two-sided p that chance alone makes a sum as far from 0 as that of `differences`.

    One integer a problem: right samples of one model less those of another, of equally many samples. If both answer
    alike, each sign is as likely as its opposite (Fisher 1935): all 2^n signs are counted, as a convolution over the
    sums, so nothing is drawn. With differences of -1, 0 and 1 it is McNemar's test.
    """
    sizes = [abs(value) for value in differences if value]
    reach = sum(sizes)
    chances = np.zeros(reach + 1)  # of the sum of those sizes whose sign is plus
    chances[0] = 1.0
    for size in sizes:
        shifted = np.concatenate([np.zeros(size), chances[:-size]])
        chances = (chances + shifted) / 2
    sums = 2 * np.arange(reach + 1) - reach
    return min(1.0, float(chances[np.abs(sums) >= abs(sum(differences))].sum()))


def _share_bounds(clusters: list[list[float]], share: float, total: int) -> tuple[float, float]:
    groups = len(clusters)
    if groups == 1 or share in (0.0, 1.0):
        return wilson(share * groups, groups)
    spread = share * (1 - share)
    variance = _cluster_variance(clusters, share, total)
    observed = min(total, spread / variance) if variance > 0 else total
    cautious = spread / (variance + (max(share, 1 - share) / groups) ** 2)
    size = max(min(observed, cautious), min(observed, groups))
    return wilson(share * size, size, _t95(groups - 1))


def _mean_bounds(clusters: list[list[float]], mean: float, total: int) -> tuple[float, float]:
    if len(clusters) == 1:
        return mean, mean
    half = _t95(len(clusters) - 1) * math.sqrt(_cluster_variance(clusters, mean, total))
    return mean - half, mean + half


def _cluster_variance(clusters: list[list[float]], mean: float, total: int) -> float:
    """Variance of the mean over all values when values of one cluster may be correlated in any way."""
    squares = math.fsum((math.fsum(values) - mean * len(values)) ** 2 for values in clusters)
    return squares * len(clusters) / (len(clusters) - 1) / total**2


def _t95(freedom: int) -> float:
    """Student's t, 97.5% point: Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5); within 1% from 3 on."""
    z, v = Z95, float(freedom)
    terms = (
        z,
        (z**3 + z) / 4 / v,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96 / v**2,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / v**3,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160 / v**4,
    )
    return sum(terms)
