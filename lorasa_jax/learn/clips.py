"""How much of the clip an agent has by its place among those that take turns: (clip, k, n)."""


def widening(clip, k, n):
    """The paper's clip of the k-th of n agents: half of it at first, all of it for the last."""
    return clip * (0.5 + 0.5 * k / n)


def tight(clip, k, n):
    """The first agent's clip for all, as the authors' code does on SMAC."""
    del k
    return clip * (0.5 + 0.5 / n)


def constant(clip, k, n):
    """The whole clip for all."""
    del k, n
    return clip


CLIPS = {"widening": widening, "tight": tight, "constant": constant}
