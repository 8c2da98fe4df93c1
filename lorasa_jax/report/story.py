"""What a report tells of a run, as plain numbers: all is computed here, and nothing drawn."""

import dataclasses
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.colors import to_hex

import lorasa_jax
from lorasa_jax import evaluate, sharing
from lorasa_jax.analysis import activations, adapters, curves, diversity, policies, weights
from lorasa_jax.analysis.distances import distances_of
from lorasa_jax.analysis.observations import collect
from lorasa_jax.config import Config
from lorasa_jax.envs.mamujoco.replay.scene import palette
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn.finished import Policy
from lorasa_jax.learn.team import Team
from lorasa_jax.policy.distributions import Categorical
from lorasa_jax.training import digests, reporting, runs, stored
from lorasa_jax.values import listed

LENGTH, ENVS = 100, 8  # steps and environments of the observations that policies are compared on
SCORES = ("eval_return", "win_rate", "action_std")


class Behaviour(NamedTuple):
    """distances [agent, agent]; {layer: [agent, unit]} activations; norms {layer: [agent]}.

    norms are those of the adapters' deltas, None without adapters.
    """

    distances: jax.Array
    activations: dict[str, jax.Array]
    norms: dict[str, jax.Array] | None


@dataclass(frozen=True)
class Story:
    """A finished run as its report tells it.

    curves: see `learning`; phases: (step, name) of every
    phase after the first. policy is the
    seed that is looked at, at `step`; agents and colours (#rrggbb) [agent]; distance: the name of
    the metric of `distances` [agent, agent]; snd: their mean, None with one agent; layers and
    norms [agent, layer] of adapters, None without; ranks [agent, layer] where training decided
    them, None elsewhere, of the layers in `rank_layers`; activations {layer: [agent, unit]};
    observations: how many joint observations policies were compared on. replay: a page of its
    own, None where the environment has no pictures.
    """

    name: str
    out: str
    summary: dict[str, Any]
    config: dict[str, Any]
    curves: dict[str, Any]
    phases: list[tuple[int, str]]
    policy: int
    step: int
    agents: list[str]
    colours: list[str]
    observations: int
    distance: str
    distances: list[list[float]]
    snd: float | None
    layers: list[str]
    norms: list[list[float]] | None
    ranks: list[list[int]] | None
    rank_layers: list[str]
    activations: dict[str, list[list[float]]]
    replay: str | None

    def numbers(self) -> dict[str, Any]:
        """Everything but the replay, ready for JSON."""
        tree = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del tree["replay"]
        return tree


def check(out: Path, policy: int | None) -> None:
    """Refuses what can be seen to be wrong with a run at once.

    Raises:
      ConfigError: the run is missing, unfinished or damaged, or `policy` is no seed of it.
    """
    runs.summary(out)
    config = runs.configured(out)
    metrics(out, config)
    if policy is not None and policy not in config.seeds:
        raise ConfigError(
            f"policy={policy} is not a seed of {out}; choose from {listed(map(str, config.seeds))}."
        )


def tell(out: Path, name: str, policy: int | None, say: Callable[[str], None]) -> Story:
    """The story of the run in `out`; `say` is called with what is being done, if it takes time.

    policy: the seed whose agents are looked at, by default the first. The run was checked before.

    Raises:
      ConfigError: the checkpoint is damaged.
    """
    summary, config = runs.summary(out), runs.configured(out)
    rows = metrics(out, config)
    policy = config.seeds[0] if policy is None else policy
    loaded = lorasa_jax.load(str(out), seed=policy)
    if loaded.team.actor.by_type:
        raise ConfigError(
            f"{out} has adapters by types that are redrawn (sharing.by=type), and reports compare "
            "policies of agents' own; evaluate it, or train with sharing.by=agent."
        )
    team, agents = loaded.seeing_team, list(loaded.env().agents)
    length = min(LENGTH, team.env.max_steps)
    say(f"{name}: comparing {len(agents)} agents on {length * ENVS:,} joint observations")
    measured = jax.jit(lambda key, banks: behaviour(key, team, banks, length))(
        jax.random.key(0), loaded.banks
    )
    matrix = np.asarray(measured.distances)
    page = None
    if hasattr(team.env, "replay"):
        say(f"{name}: playing an episode")
        page = replay(loaded)
    return Story(
        name=name,
        out=str(out),
        summary=summary,
        config=config.to_dict(),
        curves=learning(rows, config.seeds),
        phases=reporting.phase_starts(rows, config),
        policy=policy,
        step=loaded.step,
        agents=agents,
        colours=colours(page, len(agents)),
        observations=length * ENVS,
        distance=metric(team),
        distances=_numbers(matrix),
        snd=diversity.snd(matrix) if len(agents) > 1 else None,
        layers=list(weights.ordered(measured.activations)),
        norms=None if measured.norms is None else _numbers(adapters.by_layer(measured.norms)),
        **ranks_of(summary, config.seeds.index(policy)),
        activations={k: _numbers(x) for k, x in weights.ordered(measured.activations).items()},
        replay=page,
    )


def behaviour(key: jax.Array, team: Team, banks: dict[str, Any], length: int) -> Behaviour:
    """How the policies in an actor's banks differ, on what they meet when they play together.

    Every network sees the same observations, under its own agent's id where there are ids. The
    key is consumed.
    """
    scheme, own_ids = team.actor.scheme, policies.carries_ids(team.env)
    acting = scheme.weights(banks)
    observations = collect(key, team, acting, length=length, num_envs=ENVS)
    distance = distances_of(team.distribution)[metric(team)]
    return Behaviour(
        diversity.distance_matrix(distance, team, acting, observations, own_ids=own_ids),
        activations.activation_maps(team, acting, observations, own_ids=own_ids),
        weights.frobenius(weights.matrices(weights.deltas(scheme, banks)))
        if sharing.sequence.adapting(scheme)
        else None,
    )


def ranks_of(summary: dict[str, Any], seed: int) -> dict[str, Any]:
    """`ranks` and `rank_layers` of the seed number `seed` of a run, out of its summary."""
    if "ranks_per_seed" not in summary:
        return {"ranks": None, "rank_layers": []}
    ranks = weights.ordered(summary["ranks_per_seed"][seed])
    return {"ranks": np.transpose(list(ranks.values())).tolist(), "rank_layers": list(ranks)}


def metric(team: Team) -> str:
    """The name of the distance between policies: Wasserstein for their kind of actions."""
    return "wasserstein" if isinstance(team.distribution, Categorical) else "wasserstein_2"


def metrics(out: Path, config: Config) -> list[dict]:
    """The lines of a finished run's metrics.jsonl, which must be whole.

    Raises:
      ConfigError: lines are missing or damaged.
    """
    path = Path(out) / stored.METRICS
    rows, lost = stored.metrics(out)
    present = [(row["env_steps"], row["seed"]) for row in rows]
    named = all(row["phase"] in config.phase_names for row in rows)
    steps = sorted({step for step, _ in present})
    expected = sorted((step, seed) for step in steps for seed in config.seeds)
    ended = bool(steps) and steps[-1] == config.total_steps
    if lost or sorted(present) != expected or not (ended and named):
        raise ConfigError(f"{path} lacks lines; run it again in another folder.")
    digest = digests.of_text(stored.metrics_text(rows))
    if runs.summary(out).get("metrics_sha256", digest) != digest:
        raise ConfigError(
            f"{path} holds other numbers than the run wrote; run it again in another folder."
        )
    return rows


def learning(rows: list[dict], seeds: tuple[int, ...]) -> dict[str, Any]:
    """{`steps`: [step], score: {`seeds`: [seed, step], `median`, `lower`, `upper`: [step]}}.

    Scores are returns, and win rates where there are any, of greedy episodes, and the mean
    standard deviation of continuous actions while training; median and quartiles are over seeds.
    What is not finite is None.
    """
    result: dict[str, Any] = {"steps": sorted({row["env_steps"] for row in rows})}
    for score in SCORES:
        if not all(score in row for row in rows):
            continue
        at = {(row["seed"], row["env_steps"]): row[score] for row in rows}
        values = np.array([[at[seed, step] for step in result["steps"]] for seed in seeds], float)
        summary = curves.summary(values)
        parts = {"seeds": values, **{k: getattr(summary, k) for k in ("median", "lower", "upper")}}
        result[score] = {key: _numbers(x) for key, x in parts.items()}
    return result


def replay(policy: Policy) -> str:
    """The page of one greedy episode of a policy."""
    states, rewards = evaluate.episode(policy)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episode.html"
        evaluate.pictured(policy).replay(states, rewards, path, title=evaluate.title(policy))
        return path.read_text(encoding="utf-8")


def colours(page: str | None, agents: int) -> list[str]:
    """Every agent's colour: the one that a replay shows it in, else the palette's."""
    recording = re.search(r'id="recording"[^>]*>(.*?)</script>', page or "", re.S)
    units = json.loads(recording[1]).get("units") if recording else None
    if units:
        return [unit["colour"] for unit in units[:agents]]
    return [to_hex(colour) for colour in palette(agents)]


def _numbers(values) -> Any:
    """Lists of floats with as many digits as single precision has; None where not finite."""
    if np.ndim(values):
        return [_numbers(part) for part in values]
    return float(f"{float(values):.8g}") if np.isfinite(values) else None
