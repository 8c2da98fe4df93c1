"""What a configuration may say, part by part; every refusal is one sentence."""

from fnmatch import fnmatchcase

from lorasa_jax import envs
from lorasa_jax import sharing as sharing_table
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import a2po, returns
from lorasa_jax.policy.distributions import STD_LIMIT
from lorasa_jax.policy.networks import DEPTH, LAYERS_OF, layers_of
from lorasa_jax.values import listed, number, truth, whole

SWITCH_RULES = ("threshold", "improving", "plateau")


def one_of(value, key: str, accepted) -> None:
    if value not in accepted:
        raise ConfigError(f"{key}={value} is not known; choose one of {listed(accepted)}.")


def environment(env: dict) -> None:
    """What every environment has: ids, and how observations are scaled."""
    for key in ("agent_ids", "standardise"):
        truth(env[key], f"env.{key}")
    one_of(env["normalise"], "env.normalise", envs.NORMALISE)
    if env["standardise"] and env["normalise"] != "none":
        raise ConfigError(
            "env.standardise=true and env.normalise=running exclude each other; drop one of them."
        )


def lr_decay(value) -> str:
    """algo.lr_decay as a word; true and false are linear and none."""
    word = {True: "linear", False: "none", None: "none"}.get(value, value)
    one_of(word, "algo.lr_decay", ("none", "linear"))
    return word


def network(network_) -> None:
    one_of(network_.kind, "network.kind", tuple(LAYERS_OF))
    one_of(network_.log_std, "network.log_std", ("vector", "linear"))
    if not 0.0 <= network_.std_min < STD_LIMIT:
        raise ConfigError(
            f"network.std_min={network_.std_min} must be at least 0 and below {STD_LIMIT}, the "
            "largest standard deviation."
        )
    if network_.depth > DEPTH:
        raise ConfigError(f"network.depth={network_.depth} must be at most {DEPTH}.")


def adapters(sharing: dict, network_) -> None:
    """Checks and converts, in place, what `sharing` says about adapters of a network."""
    layers = layers_of(network_.kind, network_.depth)
    sharing["rank"] = whole(sharing["rank"], "sharing.rank")
    if sharing["alpha"] is not None:
        sharing["alpha"] = _above_zero(sharing["alpha"], "sharing.alpha")
    elif not sharing["rank_pattern"]:
        sharing["alpha"] = float(sharing["rank"])
    targets = sharing["targets"]
    if targets is None:
        targets = sharing["targets"] = list(layers)
    if not isinstance(targets, list) or not targets:
        raise ConfigError(
            f"sharing.targets={targets} must be a list of layers from {listed(layers)}."
        )
    for target in targets:
        _matches(target, layers, "sharing.targets holds")
    if len(set(targets)) < len(targets):
        raise ConfigError("sharing.targets names a layer twice; name each once.")
    adapted = [layer for layer in layers if any(fnmatchcase(layer, t) for t in targets)]
    for key, convert in (
        ("rank_pattern", lambda value, key: whole(value, key, least=0)),
        ("alpha_pattern", _above_zero),
    ):
        patterns = sharing[key] or {}
        if not isinstance(patterns, dict):
            raise ConfigError(f"sharing.{key}={patterns} must be of the form {{layer: number}}.")
        for pattern in patterns:
            _matches(str(pattern), layers, f"sharing.{key} holds")
            if not any(fnmatchcase(layer, str(pattern)) for layer in adapted):
                raise ConfigError(
                    f"sharing.{key} holds {pattern}, which matches none of sharing.targets "
                    f"({listed(adapted)}); drop it or add the layer."
                )
        sharing[key] = {
            str(pattern): convert(value, f"sharing.{key}.{pattern}")
            for pattern, value in patterns.items()
        } or None
    one_of(sharing["bias"], "sharing.bias", ("none", "lora", "all"))
    if truth(sharing["norms"], "sharing.norms") and not network_.layer_norm:
        raise ConfigError(
            "sharing.norms=true needs LayerNorms; drop it or set network.layer_norm=true."
        )


def clusters(sharing: dict) -> None:
    one_of(sharing["grouping"], "sharing.grouping", ("observation", "reward"))


def _matches(pattern, layers, told):
    if not any(fnmatchcase(layer, str(pattern)) for layer in layers):
        raise ConfigError(f"{told} {pattern}, which is no layer; choose from {listed(layers)}.")


def _above_zero(value, key):
    if number(value, key) <= 0:
        raise ConfigError(f"{key}={value} must be above 0.")
    return number(value, key)


def critic_sharing(value: str | None, sharing: str) -> str | None:
    """The critic's own way of sharing, or None for the one that belongs to the actor's."""
    if value is None:
        return None
    one_of(value, "critic_sharing", ("ps", "nps", "ps_lora"))
    if value == "ps_lora" and sharing != "ps_lora":
        raise ConfigError(
            f"critic_sharing=ps_lora needs the two phases of sharing=ps_lora, which {sharing} "
            "does not share; choose ps or nps."
        )
    return value


def algorithm(config) -> None:
    algo = config.algo
    one_of(algo.ratio, "algo.ratio", ("per_dimension", "joint"))
    one_of(algo.truncation, "algo.truncation", ("bootstrap", "authors", "terminal"))
    if algo.target_kl is not None:
        _above_zero(algo.target_kl, "algo.target_kl")
    for name, section in (("algo", algo), ("pretrain", config.pretrain)):
        if section is None:
            continue
        for key in ("clip", "actor_lr", "critic_lr"):
            _above_zero(getattr(section, key), f"{name}.{key}")
        if section.entropy_coef < 0.0:
            raise ConfigError(f"{name}.entropy_coef={section.entropy_coef} must be at least 0.")
    _above_zero(algo.max_grad_norm, "algo.max_grad_norm")
    if not 0.0 < algo.gamma <= 1.0:
        raise ConfigError(f"algo.gamma={algo.gamma} must be above 0 and at most 1.")
    if not 0.0 <= algo.gae_lambda <= 1.0:
        raise ConfigError(f"algo.gae_lambda={algo.gae_lambda} must lie between 0 and 1.")
    if hasattr(algo, "loop"):
        one_of(algo.loop, "algo.loop", ("agent", "epoch"))
        one_of(algo.order, "algo.order", tuple(a2po.ORDERS))
        one_of(algo.trace, "algo.trace", tuple(returns.TRACES))
        one_of(algo.clip_schedule, "algo.clip_schedule", tuple(a2po.CLIPS))
        one_of(algo.others, "algo.others", tuple(a2po.OTHERS))
        one_of(algo.trace_others, "algo.trace_others", ("all", "preceding"))
        one_of(algo.refresh, "algo.refresh", ("turn", "step"))
        if algo.others_clip is not None:
            _above_zero(algo.others_clip, "algo.others_clip")
    if algo.rollout_length % algo.chunk_length:
        raise ConfigError(
            f"algo.chunk_length={algo.chunk_length} must divide "
            f"algo.rollout_length={algo.rollout_length}."
        )
    if algo.num_envs % config.devices:
        raise ConfigError(
            f"devices={config.devices} must divide algo.num_envs={algo.num_envs}; choose another "
            "number of either."
        )
    sequences = config.batch // algo.chunk_length // config.devices
    if sequences % getattr(algo, "minibatches", 1):
        raise ConfigError(
            f"algo.minibatches={algo.minibatches} must divide the {sequences} sequences of an "
            "update (num_envs x rollout_length / chunk_length / devices)."
        )
    if config.total_steps % config.batch:
        below = max(config.total_steps // config.batch, 1) * config.batch
        raise ConfigError(
            f"total_steps={config.total_steps} must be a multiple of the {config.batch} steps of "
            f"one update (num_envs x rollout_length), such as {below}."
        )


def kept(value) -> tuple[int, ...]:
    """The steps of keep_at, ascending."""
    if not isinstance(value, list | tuple):
        raise ConfigError(f"keep_at={value} must be a list of steps, such as [2000000].")
    return tuple(sorted({whole(steps, "keep_at") for steps in value}))


def keeping(config) -> None:
    for steps in config.keep_at:
        if steps % config.batch or steps > config.total_steps:
            raise ConfigError(
                f"keep_at={steps} must be a multiple of the {config.batch} steps of one update, "
                f"at most total_steps={config.total_steps}."
            )


def switch(config, value, cell: dict, notes: list[str]) -> int | None:
    """The switch in steps; the paper's share of the run, on a whole update, if none is given.

    With a rule it is the latest time; the last update but one if none is given.
    """
    name = config.sharing["name"]
    batch, total = config.batch, config.total_steps
    if sharing_table.TABLE[name].phases == 1:
        for key in ("switch_at", "switch_when", "switch_threshold", "init_from"):
            given = value if key == "switch_at" else getattr(config, key)
            if given is not None:
                raise ConfigError(
                    f"{key}={given} needs a second phase, which sharing={name} does not have; "
                    f"drop {key} or choose ps_lora."
                )
        return None
    _rule(config, notes)
    if config.init_from is not None:
        return _start(config, value)
    if value is None:
        if total < 2 * batch:
            raise ConfigError(
                f"total_steps={total} is a single update of {batch} steps, too short for "
                f"pretraining and fine-tuning; give at least {2 * batch}."
            )
        if config.switch_when is not None:
            return total - batch
        share = cell["switch_at"] / cell["total_steps"]
        updates = min(max(round(share * config.num_updates), 1), config.num_updates - 1)
        if updates * batch != cell["switch_at"] or total != cell["total_steps"]:
            notes.append(
                f"switch_at={updates * batch:,}: the share of the run in preset={config.preset} "
                f"({share:.1%}), on a whole update"
            )
        return updates * batch
    steps = whole(value, "switch_at")
    if not batch <= steps < total:
        raise ConfigError(
            f"switch_at={steps} must lie between one update ({batch} steps) and the last one "
            f"before total_steps={total}."
        )
    if steps % batch:
        below = max(steps // batch, 1) * batch
        raise ConfigError(
            f"switch_at={steps} must be a multiple of the {batch} steps of one update, "
            f"such as {below}."
        )
    return steps


def _rule(config, notes):
    if config.switch_when is None:
        if config.switch_threshold is not None:
            raise ConfigError(
                "switch_threshold needs switch_when=threshold or improving; add it or drop this."
            )
        return
    one_of(config.switch_when, "switch_when", SWITCH_RULES)
    if config.switch_when == "plateau" and config.switch_threshold is not None:
        raise ConfigError("switch_when=plateau knows no switch_threshold; drop it.")
    if config.init_from is not None:
        raise ConfigError("switch_when and init_from exclude each other; drop one of them.")
    if config.switch_when == "threshold" and config.switch_threshold is None:
        raise ConfigError("switch_when=threshold needs switch_threshold=RETURN; add it.")
    notes.append(f"the switch comes when the rule `{config.switch_when}` holds")


def _start(config, value):
    """The step of the pretrained checkpoint, which is where the second phase begins."""
    path, _, step = str(config.init_from).rpartition("@")
    if not path or not step:
        raise ConfigError(
            f"init_from={config.init_from} must be of the form RUN@STEP, a run's folder and the "
            "environment steps of one of its checkpoints."
        )
    step = whole(step, "the step of init_from")
    if value is not None and whole(value, "switch_at") != step:
        raise ConfigError(f"switch_at={value} differs from init_from's step {step}; drop it.")
    if step % config.batch or step >= config.total_steps:
        raise ConfigError(
            f"init_from={config.init_from} must name a multiple of the {config.batch} steps of "
            f"one update, below total_steps={config.total_steps}."
        )
    return step
