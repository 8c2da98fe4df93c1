"""The run that another begins its second phase from (`init_from`), checked to fit it."""

from lorasa_jax import sharing
from lorasa_jax.config import Config
from lorasa_jax.errors import ConfigError
from lorasa_jax.sharing import clustering
from lorasa_jax.training import runs
from lorasa_jax.training.teams import build_teams
from lorasa_jax.values import whole_number


def pretrained(config: Config) -> runs.Checkpoint:
    """The checkpoint that `init_from` names, checked to fit what is to be fine-tuned.

    Raises:
      ConfigError: the run is of another environment, network, batch or number of seeds, or past
        its first phase.
    """
    assert config.init_from is not None  # or there is nothing to ask for
    path, _, step = config.init_from.rpartition("@")
    checkpoint = runs.load(path, whole_number(step, "the step of init_from"), resumable=True)
    saved_config, new_config = checkpoint.config, config
    for what, one, other in (
        ("environment", saved_config.env, new_config.env),
        ("network", saved_config.network, new_config.network),
        ("num_envs", saved_config.algo.num_envs, new_config.algo.num_envs),
        ("rollout_length", saved_config.algo.rollout_length, new_config.algo.rollout_length),
        ("chunk_length", saved_config.algo.chunk_length, new_config.algo.chunk_length),
        ("number of seeds", saved_config.num_seeds, new_config.num_seeds),
        ("way of pretraining", _pretraining(saved_config), _pretraining(new_config)),
    ):
        if one != other:
            raise ConfigError(
                f"init_from={config.init_from} has another {what} ({one} there, {other} here); "
                "choose a run that matches."
            )
    groups = new_config.sharing.get("clusters")
    if groups is not None and clustering.renumbered(groups) != checkpoint.clusters:
        raise ConfigError(
            f"init_from={config.init_from} was pretrained with other clusters than "
            f"sharing.clusters={groups}; drop sharing.clusters."
        )
    if checkpoint.phase != 0:
        raise ConfigError(
            f"init_from={config.init_from} is a checkpoint after the switch; give a step before it."
        )
    first = build_teams(config, checkpoint.clusters)[0].actor.scheme
    if dict(first.banks) != dict(checkpoint.team.actor.scheme.banks):
        raise ConfigError(
            f"init_from={config.init_from} was pretrained with other banks of parameters than "
            f"sharing={new_config.sharing['name']} begins with; choose a run that matches."
        )
    return checkpoint


def _pretraining(config):
    name = config.sharing["name"]
    return sharing.REGISTRY.row(name).phases[0].scheme or name, config.critic_sharing
