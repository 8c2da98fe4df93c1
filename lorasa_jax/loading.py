"""Finished policies read back, of runs and of exports: `lorasa_jax.load` and `lorasa_jax.load_all`.

To let one act:

    policy = lorasa_jax.load("runs/ant_4x2-...")
    env, carry = policy.env(), policy.initial_carry()
    state, timestep = env.reset(key)
    carry, action = policy.act(timestep.obs, carry, False, timestep.legal)
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from lorasa_jax.config import plugins as modules
from lorasa_jax.errors import ConfigError
from lorasa_jax.export.policy import CARD
from lorasa_jax.export.rebuild import rebuild
from lorasa_jax.learn.finished import Policy
from lorasa_jax.training import runs
from lorasa_jax.values import whole_number


def load(
    out: str | Path,
    step: int | None = None,
    seed: int | None = None,
    *,
    plugins: Sequence[str] = (),
) -> Policy:
    """The policy in `out`, the folder of a run or of a safetensors export.

    step: joint environment steps of one of the run's checkpoints, by default its last, whether
    the run has finished or not. seed: which of the run's, needed where it has several; `load_all`
    gives those of all. plugins: modules that the run was trained with, if they are not
    imported yet; what a folder alone names is not.

    Raises:
      ConfigError: there is no such run, export, checkpoint or seed, several seeds and none is
        chosen, or the files cannot be read; in one sentence.
    """
    modules.load(list(plugins))
    seeds, policy = _read(out, step)
    return policy(runs.chosen_seed(out, seeds, seed))


def load_all(
    out: str | Path, step: int | None = None, *, plugins: Sequence[str] = ()
) -> tuple[Policy, ...]:
    """The policies of all seeds in `out`, the checkpoint being read once; as `load` otherwise."""
    modules.load(list(plugins))
    seeds, policy = _read(out, step)
    return tuple(policy(seed) for seed in seeds)


def _read(out, step) -> tuple[tuple[int, ...], Callable[[int], Policy]]:
    """The seeds in `out`, and what gives the policy of one of them."""
    step = None if step is None else whole_number(step, "step", least=0)
    if not (Path(out) / CARD).exists():
        run = runs.load(out, step)
        return run.config.seeds, run.policy
    exported = rebuild(out)
    if step not in (None, exported.step):
        raise ConfigError(f"out={out} is an export of step {exported.step}; drop step.")
    return exported.seeds, lambda seed: exported
