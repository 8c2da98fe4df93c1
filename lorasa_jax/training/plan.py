"""A run evaluated abstractly before step 0: what can be known to fail fails here, in a sentence."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lorasa_jax import envs
from lorasa_jax.config import Config
from lorasa_jax.envs import contract
from lorasa_jax.envs.normalise import showing
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import play
from lorasa_jax.learn.team import Team
from lorasa_jax.training import measure_names, memory, phases


def check(config: Config, teams: tuple[Team, ...]) -> None:
    """Evaluates the environment's contract and every phase, shapes and types alone.

    Raises:
      ConfigError: in one sentence that says which part does not fit, and where.
    """
    name = config.env["name"]
    contract.check(teams[0].env, name)
    memory.check(config, teams[0].env)
    if envs.REGISTRY.row(name).outside:
        contract.check_legal(teams[0].env, name)
    names = config.phase_names
    if len(teams) != len(names):
        raise ConfigError(
            f"sharing={config.sharing['name']} builds schemes for {len(teams)} phases, and its row "
            f"names {len(names)}; make them as many."
        )
    state = None
    for index, team in enumerate(teams):
        state = _phase(config, teams, index, team, state)


def _phase(config, teams, index, team, state):
    """A phase's train state [no seed axis] in shapes, evaluated from that of the phase before."""
    evaluate = functools.partial(_evaluated, config, config.phase_names[index])
    hp = config.algo_of(index)
    if state is None:
        seed = jax.ShapeDtypeStruct((), jnp.uint32)
        state = evaluate("init", lambda seed: phases.start(seed, team, hp), seed)
    else:
        keeps = config.keeps_optimisers(index)
        adopt = functools.partial(phases.adopted, teams, index, keeps=keeps)
        state = evaluate("adopt", lambda state: adopt(state), state)
    evaluate("weights", lambda s: team.actor.scheme.weights(s.actor.banks), state)
    update = functools.partial(phases.first_update, config, index, team)
    after, report = evaluate("update", update, state)
    measure_names.remember(config, index, team, report)
    _check_same(config, index, state, after)

    def evaluation(state):
        evaluation_team = team._replace(env=showing(team.env, state.observed))
        scheme = team.actor.scheme
        weights = scheme.weights(scheme.served(state.actor.banks))
        return play.play(jax.random.key(0), evaluation_team, weights, episodes=config.eval_episodes)

    evaluate("evaluation", evaluation, state)
    return state


def _evaluated(config: Config, phase: str, what: str, function: Callable, *arguments: Any):
    try:
        return jax.eval_shape(function, *arguments)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"sharing={config.sharing['name']} with algo={config.algo.name} fails in the {what} of "
            f"phase `{phase}` ({type(error).__name__}: {contract.first_line(error)}); mend it."
        ) from error


def _check_same(config, index, before, after):
    """An update must return the state that it was given, in shapes and types."""
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (before, after)]
    if jax.tree.structure(before) != jax.tree.structure(after) or shapes[0] != shapes[1]:
        raise ConfigError(
            f"algo={config.algo.name} returns another state in phase "
            f"`{config.phase_names[index]}` than it was given; return the same shapes and types."
        )
