"""Which agents share a network under SePS: given, found before training, or read back."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from lorasa_jax import envs, hosts, sharing
from lorasa_jax.config import Config
from lorasa_jax.errors import ConfigError
from lorasa_jax.files import write_atomically
from lorasa_jax.learn import rollout
from lorasa_jax.sharing import clustering
from lorasa_jax.training import checkpoint, stored
from lorasa_jax.training.stored import CLUSTERS as FILE


def needed(config: Config) -> bool:
    return sharing.REGISTRY.row(config.sharing["name"]).clustered


def read(out: str | Path, config: Config, meta: dict | None = None) -> tuple[int, ...] | None:
    """The groups that the run in `out`, of that configuration, was trained with, if any.

    meta: what lies beside the state that they are for; its groups are those of the state, whatever
    the file says.

    Raises:
      ConfigError: the file is damaged, and no checkpoint knows better.
    """
    if not needed(config):
        return None
    trained = (meta or {}).get("clusters")
    if trained is not None:
        return tuple(trained)
    return stored.clusters(out, _agents(config), config.sharing["clusters"])


def settle(
    out: Path,
    config: Config,
    inherited: tuple[int, ...] | None,
    say: Callable[[str], None],
) -> tuple[int, ...]:
    """The groups to train with: those trained with so far, else `inherited`, given or found ones.

    They are written to the run's folder; where the file says otherwise that is said.

    Raises:
      ConfigError: the file is damaged, and there is no whole checkpoint to mend it from.
    """
    return tuple(hosts.led(lambda: _settled(out, config, inherited, say)))


def _settled(out, config, inherited, say):
    trained = checkpoint.newest_meta(out / "checkpoints").get("clusters")
    try:
        groups = stored.clusters(out, _agents(config), config.sharing["clusters"])
    except ConfigError as error:
        if trained is None:
            raise
        say(f"warning: {error}")
        groups = None
    if trained is not None and groups != tuple(trained):
        say(f"warning: {out / FILE} is written anew, with the groups of the newest checkpoint")
        groups = tuple(trained)
    groups = groups or inherited or find(config)
    try:
        write_atomically(out / FILE, json.dumps({"clusters": groups}) + "\n")
    except OSError as error:
        raise ConfigError(f"{out / FILE} cannot be written ({error.strerror}).") from error
    say(f"clusters of agents: {list(groups)}")
    return groups


def _agents(config):
    return envs.make(**config.env).num_agents


def check(config: Config) -> None:
    """Refuses what cannot be clustered, before anything is compiled.

    Raises:
      ConfigError: two agents, or given clusters that do not cover all agents.
    """
    env = envs.make(**config.env)
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
    from lorasa_jax.training.teams import build_teams

    groups = config.sharing["clusters"]
    if groups is not None:
        return clustering.renumbered(groups)
    team = build_teams(config, independent=True)[0]
    hp = config.algo_of(-1)
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
