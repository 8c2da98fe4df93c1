"""Which agents share a network under SePS: given, found before training, or read back."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp

from lorasa_jax import envs, sharing
from lorasa_jax.config import Config
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import rollout
from lorasa_jax.sharing import clustering

FILE = "clusters.json"


def needed(config: Config) -> bool:
    return sharing.REGISTRY.row(config.sharing["name"]).clustered


def read(out: str | Path) -> tuple[int, ...] | None:
    """The clusters that a run wrote into its folder."""
    path = Path(out) / FILE
    try:
        return tuple(json.loads(path.read_text())["clusters"]) if path.exists() else None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged and cannot be read; run it again.") from error


def check(config: Config) -> None:
    """Refuses what cannot be clustered, before anything is compiled.

    Raises:
      ConfigError: two agents, or given clusters that do not cover all agents.
    """
    options = dict(config.env)
    env = envs.make(options.pop("name"), **options)
    groups = config.sharing["clusters"]
    if groups is None:
        if env.num_agents < 3:
            raise ConfigError(
                f"sharing={config.sharing['name']} finds groups among 3 agents or more, and "
                f"{config.env['name']} has {env.num_agents}; choose ps, nps or ps_lora."
            )
        return
    valid = isinstance(groups, list) and all(
        isinstance(group, int) and not isinstance(group, bool) and group >= 0 for group in groups
    )
    if not valid or len(groups) != env.num_agents:
        raise ConfigError(
            f"sharing.clusters={groups} must give the number of a group for each of the "
            f"{env.num_agents} agents."
        )


def find(config: Config) -> tuple[int, ...]:
    """The group of every agent: as configured, or from one trajectory of random play.

    Every agent plays with a fresh network of its own, as in SePS; a batch of seeds shares the
    clusters of its first seed. Reproducible from that seed.
    """
    from lorasa_jax.training import phases

    groups = config.sharing["clusters"]
    if groups is not None:
        return clustering.renumbered(groups)
    team = phases.build_teams(config, independent=True)[0]
    hp = phases.hyperparameters(config)
    play_key, train_key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 2))

    @jax.jit
    def experience(key, seed):
        state = phases.start(seed, team, hp)
        _, trajectory, _ = rollout.collect(key, team, state, hp)
        return jax.tree.map(rollout.merge_time, trajectory.transitions)

    steps = experience(play_key, jnp.uint32(config.seed))
    action = team.distribution.to_env(steps.action).astype(float)
    action = action[..., None] if action.ndim == 3 else action
    target = steps.obs[1:]
    if config.sharing["grouping"] == "reward":
        reward = jnp.broadcast_to(steps.reward[:-1, :, None, None], (*target.shape[:-1], 1))
        target = jnp.concatenate([target, reward], axis=-1)
    agents = jnp.broadcast_to(jnp.arange(team.env.num_agents), target.shape[:3])
    parts = (agents, steps.obs[:-1], action[:-1], target)
    data = clustering.Experience(*(x.reshape(-1, *x.shape[3:]) for x in parts))
    # The step after an episode's end belongs to another episode.
    ended = (steps.terminated | steps.truncated)[:-1]
    continues = jnp.broadcast_to(~ended[..., None], target.shape[:3]).reshape(-1)
    data = jax.tree.map(lambda x: x[continues], data)
    return clustering.cluster(clustering.embed(train_key, data, team.env.num_agents))
