"""When to freeze the backbone: rules on a run's evaluation returns (paper, Sec. 4).

The paper switches on "consistent improvement and predefined performance thresholds", and picked
its steps by hand; these rules decide it in the run. A rule sees the returns so far, oldest first.
"""

import itertools


def threshold(returns: list[float], *, threshold: float, **_) -> bool:
    """The last evaluation reached the threshold."""
    return returns[-1] >= threshold


def improving(returns: list[float], *, patience: int, threshold: float | None = None, **_) -> bool:
    """Each of the last `patience` evaluations beat the one before, and the threshold if given."""
    recent = returns[-patience - 1 :]
    if len(recent) <= patience:
        return False
    steady = all(later > earlier for earlier, later in itertools.pairwise(recent))
    return steady and (threshold is None or returns[-1] >= threshold)


def plateau(returns: list[float], *, patience: int, margin: float, **_) -> bool:
    """The best of the last `patience` evaluations is no better than the best before them.

    Better is by more than `margin` times the magnitude of that best.
    """
    if len(returns) <= patience:
        return False
    before = max(returns[:-patience])
    return max(returns[-patience:]) <= before + margin * abs(before)


RULES = {"threshold": threshold, "improving": improving, "plateau": plateau}
