"""Checks of a configuration's keys against one another; every refusal is one sentence."""

import itertools

from lorasa_jax import hosts, keys, sharing
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import devices
from lorasa_jax.sharing import sequence
from lorasa_jax.values import LARGEST, LARGEST_SEED, whole_number


def critic_sharing(config) -> None:
    if config.critic_sharing == "ps_lora" and config.sharing["name"] != "ps_lora":
        raise ConfigError(
            f"critic_sharing=ps_lora needs the two phases of sharing=ps_lora, which "
            f"{config.sharing['name']} does not share; choose ps or nps."
        )


def seeds(config) -> None:
    """Every seed is a number of its own to JAX, which has 32 bits of it."""
    last = config.seed + config.num_seeds - 1
    if last > LARGEST_SEED:
        raise ConfigError(
            f"seed={config.seed} with num_seeds={config.num_seeds} ends at {last}; seeds must be "
            f"at most {LARGEST_SEED}."
        )


def on_hosts(config) -> None:
    """Every host has as many of the devices as any other."""
    count = hosts.named(config.hosts).count
    if config.devices % count:
        raise ConfigError(
            f"devices={config.devices} counts the devices of all hosts and must be a multiple of "
            f"the {count} of hosts={config.hosts}; choose another number."
        )


def unused(config) -> None:
    """Numbers of a rule for the switch that no rule here looks at."""
    for key, rules in (
        ("switch_patience", ("improving", "plateau")),
        ("switch_margin", ("plateau",)),
    ):
        default = keys.default(keys.keys(type(config))[key])
        if getattr(config, key) != default and config.switch_when not in rules:
            raise ConfigError(
                f"{key}={getattr(config, key)} needs switch_when={' or '.join(rules)}; add it or "
                f"drop {key}."
            )


def divisions(config) -> None:
    """Counts that must divide one another."""
    algo = config.algo
    if algo.rollout_length % algo.chunk_length:
        raise ConfigError(
            f"algo.chunk_length={algo.chunk_length} must divide "
            f"algo.rollout_length={algo.rollout_length}."
        )
    _, parts = devices.split(config.devices, config.num_seeds)
    if algo.num_envs % parts:
        raise ConfigError(
            f"devices={config.devices} gives every seed {parts} devices, whose number must divide "
            f"algo.num_envs={algo.num_envs}; choose another number of either."
        )
    sequences = config.batch // algo.chunk_length // parts
    if sequences % algo.minibatches:
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
    if config.num_updates > LARGEST:
        raise ConfigError(
            f"total_steps={config.total_steps} is {config.num_updates} updates; give at most "
            f"{LARGEST}, {LARGEST * config.batch} steps."
        )
    for steps in config.keep_at:
        if steps % config.batch or steps > config.total_steps:
            raise ConfigError(
                f"keep_at={steps} must be a multiple of the {config.batch} steps of one update, "
                f"at most total_steps={config.total_steps}."
            )


def switch(config, cell: dict, notes: list[str]) -> int | tuple[int, ...] | None:
    """The steps at which phases after the first begin; by default shares of the run.

    With a rule they are the latest times; the last update but one if none is given. cell: numbers
    of the paper or a preset, of which `switch_at` and `total_steps` say the share.

    Raises:
      ConfigError: there is no such phase, or a step that cannot be one.
    """
    row = sharing.REGISTRY.row(config.sharing["name"])
    if config.phases is not None:
        return _sequence(config, sequence.entries(config.phases, row))
    if config.phase_optimisers == "kept":
        raise ConfigError("phase_optimisers=kept needs a list of phases; add phases or drop it.")
    phases = row.phases
    value, count = config.switch_at, len(phases) - 1
    if count == 0:
        _no_second_phase(config)
        return None
    _rule(config, notes)
    if config.init_from is not None:
        later = value[1:] if isinstance(value, tuple) else None
        first = _start(config, value[0] if isinstance(value, tuple) else value)
        if count == 1 and later is None:
            return first
        later = _shares(config, phases, cell, notes)[1:] if later is None else later
        value = (first, *later)
    elif value is None:
        value = _shares(config, phases, cell, notes)
    steps = value if isinstance(value, tuple) else (value,)
    if len(steps) != count:
        raise ConfigError(
            f"switch_at={list(steps)} must be {count} steps, one for each phase of "
            f"sharing={config.sharing['name']} after the first."
        )
    for step, before in zip(steps, (0, *steps), strict=False):
        _check_step(config, step, before)
    return steps[0] if count == 1 else steps


def _sequence(config, found) -> int | tuple[int, ...]:
    """The steps at which the phases of a list after the first begin."""
    shown, batch, total = f"phases=[{','.join(config.phases)}]", config.batch, config.total_steps
    if config.switch_when is not None:
        raise ConfigError("switch_when and phases exclude each other; drop one of them.")
    for entry in found[:-1]:
        if entry.steps is None:
            raise ConfigError(
                f"{shown}: {entry.word} needs its number of steps, such as {entry.word}:{batch}; "
                "only the last phase does without."
            )
    for entry in found:
        if entry.steps is not None and (entry.steps % batch or not entry.steps):
            raise ConfigError(
                f"{shown}: the {entry.steps} steps of {entry.word} must be a multiple of the "
                f"{batch} steps of one update, such as {max(entry.steps // batch, 1) * batch}."
            )
    starts = tuple(itertools.accumulate(entry.steps for entry in found[:-1]))
    last = found[-1].steps
    if starts[-1] >= total or last not in (None, total - starts[-1]):
        rest = f"end at total_steps={total}, and " + (
            f"the phases before the last take {starts[-1]} steps already"
            if starts[-1] >= total
            else f"leave {total - starts[-1]} steps for the last, which says {last}"
        )
        raise ConfigError(f"{shown} must {rest}.")
    switches = starts[0] if len(starts) == 1 else starts
    if config.switch_at not in (None, switches):
        raise ConfigError(f"switch_at={config.switch_at} and {shown} differ; drop switch_at.")
    if config.init_from is not None:
        _start(config, starts[0])
    return switches


def _no_second_phase(config):
    for key in ("switch_at", "switch_when", "switch_threshold", "init_from"):
        value = getattr(config, key)
        if value is not None:
            raise ConfigError(
                f"{key}={value} needs a second phase, which sharing={config.sharing['name']} does "
                f"not have; drop {key} or choose ps_lora."
            )


def _shares(config, phases, cell, notes):
    """The ends of all phases but the last, on whole updates."""
    updates, batch = config.num_updates, config.batch
    count = len(phases) - 1
    if updates <= count:
        raise ConfigError(
            f"total_steps={config.total_steps} is {_of_updates(updates)} of {batch} steps, too "
            f"short for {' and '.join(p.name for p in phases)}; give at least "
            f"{(count + 1) * batch}."
        )
    if config.switch_when is not None:
        return tuple((updates - count + i) * batch for i in range(count))
    shares = [phase.until for phase in phases[:-1]]
    if count == 1 and "switch_at" in cell:
        shares = [cell["switch_at"] / cell["total_steps"]]
    ends = [min(max(round(s * updates), i + 1), updates - count + i) for i, s in enumerate(shares)]
    steps = tuple(end * batch for end in ends)
    exact = count == 1 and steps[0] == cell.get("switch_at")
    if not exact or config.total_steps != cell["total_steps"]:
        step_list = ", ".join(f"{step:,}" for step in steps)
        share_list = ", ".join(f"{share:.1%}" for share in shares)
        notes.append(
            f"switch_at={step_list}: the share of the run in preset={config.preset} "
            f"({share_list}), on a whole update"
        )
    return steps


def _of_updates(count):
    return "a single update" if count == 1 else f"{count} updates"


def _check_step(config, steps, before):
    batch = config.batch
    if not before + batch <= steps < config.total_steps:
        first = f"one update ({batch} steps)" if not before else f"an update after {before}"
        raise ConfigError(
            f"switch_at={steps} must lie between {first} and the last one "
            f"before total_steps={config.total_steps}."
        )
    if steps % batch:
        below = max(steps // batch, 1) * batch
        raise ConfigError(
            f"switch_at={steps} must be a multiple of the {batch} steps of one update, "
            f"such as {below}."
        )


def _rule(config, notes):
    if config.switch_when is None:
        if config.switch_threshold is not None:
            raise ConfigError(
                "switch_threshold needs switch_when=threshold or improving; add it or drop this."
            )
        return
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
    step = whole_number(step, "the step of init_from")
    if value is not None and value != step:
        raise ConfigError(f"switch_at={value} differs from init_from's step {step}; drop it.")
    if step % config.batch or step >= config.total_steps:
        raise ConfigError(
            f"init_from={config.init_from} must name a multiple of the {config.batch} steps of "
            f"one update, below total_steps={config.total_steps}."
        )
    return step
