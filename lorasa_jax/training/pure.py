"""Training as one pure function, to be compiled, vmapped and called by programs of one's own."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.config import Config
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn.play import EpisodeResults
from lorasa_jax.learn.ppo import TrainState
from lorasa_jax.training import clusters, phases
from lorasa_jax.training.teams import build_teams, tuned

NOTHING: Mapping[str, Any] = MappingProxyType({})


class TrainedState(NamedTuple):
    """What `train` returns.

    state: the train state at the end; state.actor.banks are the parameters. updates [evaluation];
    results: greedy play, returns [evaluation, episode]. reports {name: [evaluation]}: means over
    the updates since the evaluation before, not a number where there was none, or where the phase
    does not report them.
    """

    state: TrainState
    updates: jax.Array
    results: EpisodeResults
    reports: dict[str, jax.Array]


def make_train(config: Config) -> Callable[..., TrainedState]:
    """train(key, numbers={}) -> TrainedState: a configuration's whole run of one seed, pure.

    key []: of `jax.random.key`; `jax.random.key(s)` gives the run with seed=s of the command line.
    numbers {key: []}: values of `numbers_of(config)` that replace the configuration's own, such as
    {"algo.clip": 0.1}; a first phase with numbers of its own takes them from `pretrain`, such as
    "pretrain.clip". They may be traced: `jax.vmap(train)` over either is a sweep. The function
    is built from what a run on the command line is built from (begin, train, switch, evaluate),
    without its files, bars and signals.

    Raises:
      ConfigError: the run needs decisions outside compiled code: a rule for the switch, clusters
        that have to be found, several devices, another run to begin from.
    """
    for given, key, instead in (
        (config.switch_when, "switch_when", "give switch_at"),
        (config.init_from, "init_from", "train the run from its beginning"),
        (config.devices > 1, "devices", "shard the function itself"),
        (clusters.needed(config), "sharing", "choose one without clusters"),
    ):
        if given:
            raise ConfigError(f"make_train has no use for {key}; {instead}.")
    teams = build_teams(config)

    def train(key: jax.Array, numbers: Mapping[str, Any] = NOTHING) -> TrainedState:
        numbers = {name: jnp.asarray(value, jnp.float32) for name, value in numbers.items()}
        numbered = tuned(config, teams[0], numbers)
        progress = phases.begin_one(config, numbered[0], key)
        rows = []
        for index, team in enumerate(numbered):
            if index:
                progress = phases.entered(config, numbered, index, progress)

            def chunk(progress, n, index=index, team=team):
                progress = phases.trained(config, index, team, numbers, progress, n)
                policy = phases.finished(progress, team)
                results = phases.evaluated(config, team, policy, key, progress.update)
                sums = dict(progress.sums)
                count = sums.pop("updates")
                means = {name: value / count for name, value in sums.items()}
                cleared = jax.tree.map(jnp.zeros_like, (progress.sums, progress.episodes))
                progress = progress._replace(sums=cleared[0], episodes=cleared[1])
                return progress, (progress.update, results, means)

            progress, phase_rows = jax.lax.scan(chunk, progress, jnp.array(_chunks(config, index)))
            rows.append(phase_rows)
        names = sorted({name for *_, means in rows for name in means})
        rows = [(updates, results, _filled(means, names)) for updates, results, means in rows]
        joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *rows)
        return TrainedState(progress.state, *joined)

    return train


def _filled(means, names):
    """The means, not a number in phases that do not report them."""
    like = next(iter(means.values()))
    return {name: means.get(name, jnp.full_like(like, jnp.nan)) for name in names}


def _chunks(config, index):
    """Updates between evaluations in a phase: at each multiple of eval_every and its end."""
    begin = config.phase_ends[index - 1] if index else 0
    end, every = config.phase_ends[index], config.eval_every
    at = sorted({*range((begin // every + 1) * every, end, every), end})
    first = [0] if index == 0 else []
    return [*first, *(b - a for a, b in zip([begin, *at[:-1]], at, strict=True))]
