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
from lorasa_jax import episodes, sharing
from lorasa_jax.analysis import activations, adapters, diversity, policies, weights
from lorasa_jax.analysis.distances import distances_of
from lorasa_jax.analysis.observations import collect
from lorasa_jax.envs.mamujoco.replay.scene import palette
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn.finished import Policy
from lorasa_jax.learn.team import Team
from lorasa_jax.report.learning import SCORES, learning, metrics, numbers, over_seeds
from lorasa_jax.training import reporting, runs
from lorasa_jax.values import flat, listed

# Keys that tell the seeds of one configuration apart, and where their runs lie.
SEED_KEYS = ("seed", "num_seeds", "out", "init_from", "keep_at")


class Behaviour(NamedTuple):
    """distances [agent, agent]; {layer: [agent, unit]} activations; norms {layer: [agent]}.

    shared: the activations of the backbone alone; norms: those of the adapters' deltas; None
    without adapters.
    """

    distances: jax.Array
    activations: dict[str, jax.Array]
    shared: dict[str, jax.Array] | None
    norms: dict[str, jax.Array] | None


@dataclass(frozen=True)
class Story:
    """A finished run as its report tells it.

    curves: see `learning`; phases: (step, name) of every phase after the first. policy is the seed
    that is looked at, at `step`; agents and colours (#rrggbb) [agent]; distance: the name of the
    metric of `distances` [agent, agent]; snd: their mean, None with one agent; layers and norms
    [agent, layer] of adapters, None without; ranks [agent, layer] where training decided them, None
    elsewhere, of the layers in `rank_layers`; activations {layer: [agent, unit]}, and beyond
    {layer: [agent, unit]} how much they are above those of the shared policy, which is the backbone
    or, without adapters, the mean of all agents; observations: how many joint observations policies
    were compared on. replay: a page of its own, None where the environment has no pictures.
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
    beyond: dict[str, list[list[float]]]
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
    length, envs = diversity.visits(team)
    say(f"{name}: comparing {len(agents)} agents on {length * envs:,} joint observations")
    measured = jax.jit(lambda key, banks: behaviour(key, team, banks))(
        jax.random.key(policy), loaded.banks
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
        observations=length * envs,
        distance=diversity.DISTANCE,
        distances=numbers(matrix),
        snd=diversity.snd(matrix) if len(agents) > 1 else None,
        layers=list(weights.ordered(measured.activations)),
        norms=None if measured.norms is None else numbers(adapters.by_layer(measured.norms)),
        **ranks_of(summary, config.seeds.index(policy)),
        activations={k: numbers(x) for k, x in weights.ordered(measured.activations).items()},
        beyond={k: numbers(x) for k, x in beyond(measured).items()},
        replay=page,
    )


def behaviour(key: jax.Array, team: Team, banks: dict[str, Any]) -> Behaviour:
    """How the policies in an actor's banks differ, on what they meet when they play together.

    Every network sees the same observations, under its own agent's id where there are ids. The
    key is consumed.
    """
    scheme, own_ids = team.actor.scheme, policies.carries_ids(team.env)
    acting = scheme.weights(banks)
    length, envs = diversity.visits(team)
    observations = collect(key, team, acting, length=length, num_envs=envs)
    distance = distances_of(team.distribution)[diversity.DISTANCE]

    def active(actor_weights):
        return activations.activation_maps(team, actor_weights, observations, own_ids=own_ids)

    shared = norms = None
    if sharing.sequence.adapting(scheme):
        if "net" in scheme.banks:
            backbone = weights.backbone(scheme, banks)
            shared = active((backbone, jax.tree.map(lambda _: 0, backbone)))
        norms = weights.frobenius(weights.matrices(weights.deltas(scheme, banks)))
    matrix = diversity.distance_matrix(distance, team, acting, observations, own_ids=own_ids)
    return Behaviour(matrix, active(acting), shared, norms)


def ranks_of(summary: dict[str, Any], seed: int) -> dict[str, Any]:
    """`ranks` and `rank_layers` of the seed number `seed` of a run, out of its summary."""
    if "ranks_per_seed" not in summary:
        return {"ranks": None, "rank_layers": []}
    ranks = weights.ordered(summary["ranks_per_seed"][seed])
    return {"ranks": np.transpose(list(ranks.values())).tolist(), "rank_layers": list(ranks)}


def beyond(measured: Behaviour) -> dict[str, np.ndarray]:
    """{layer: [agent, unit]}: activations above the shared policy's, or above the agents' mean."""
    maps = {layer: np.asarray(x, float) for layer, x in measured.activations.items()}
    if measured.shared is None:
        shared = {layer: x.mean(0, keepdims=True) for layer, x in maps.items()}
    else:
        shared = {layer: np.asarray(x, float) for layer, x in measured.shared.items()}
    return {layer: maps[layer] - shared[layer] for layer in weights.ordered(maps)}


def grouped(stories: list[Story]) -> list[Story]:
    """The stories with those of one configuration and different seeds joined into one.

    Such a story's summary and curves are of all the seeds; all else is its first run's.
    """
    groups: dict[str, list[Story]] = {}
    for story in stories:
        kind = {k: v for k, v in flat(story.config).items() if k not in SEED_KEYS}
        members = groups.setdefault(json.dumps([kind, story.curves["steps"]], default=str), [])
        members.append(story)
    joined = []
    for members in groups.values():
        seeds = [seed for story in members for seed in story.summary["seeds"]]
        separate = len(members) == 1 or len(set(seeds)) < len(seeds)
        joined += members if separate else [_joined(members)]
    return joined


def _joined(members):
    first = members[0]
    summary = dict(first.summary)
    for name in ("seeds", "eval_return_per_seed", "win_rate_per_seed"):
        if name in summary:
            summary[name] = [value for story in members for value in story.summary[name]]
    for name in ("eval_return", "win_rate"):
        if name in summary:
            summary[name] = float(np.mean(np.array(summary[f"{name}_per_seed"], float)))
    signs = [sign for story in members for sign in story.summary.get("warnings", ())]
    summary["warnings"] = list(dict.fromkeys(signs))
    curves_: dict[str, Any] = {"steps": first.curves["steps"]}
    for score in SCORES:
        if score in first.curves:
            values = [seed for story in members for seed in story.curves[score]["seeds"]]
            curves_[score] = over_seeds(np.array(values, float), curves_["steps"])
    best = np.array(curves_["eval_return"]["mean"], float)
    summary["best_eval_return"] = float(best.max())
    summary["best_eval_step"] = curves_["steps"][int(best.argmax())]
    return dataclasses.replace(first, summary=summary, curves=curves_)


def replay(policy: Policy) -> str:
    """The page of one greedy episode of a policy."""
    states, rewards = episodes.episode(policy)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episode.html"
        episodes.pictured(policy).replay(states, rewards, path, title=episodes.title(policy))
        return path.read_text(encoding="utf-8")


def colours(page: str | None, agents: int) -> list[str]:
    """Every agent's colour: the one that a replay shows it in, else the palette's."""
    recording = re.search(r'id="recording"[^>]*>(.*?)</script>', page or "", re.S)
    units = json.loads(recording[1]).get("units") if recording else None
    if units:
        return [unit["colour"] for unit in units[:agents]]
    return [to_hex(colour) for colour in palette(agents)]
