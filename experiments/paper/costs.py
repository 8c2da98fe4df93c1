"""What every way of sharing costs by the number of agents, on a task that any number can play.

    python -m experiments.figure_3 schemes=all [agents=2+8+64+1024] [adapters=10000] [turns=3]

figure_3_costs.csv has a row for every way of sharing and number of agents: parameters of the actors
in all, and per agent beyond those of one network alone; medians over `turns` of one update and of
one step of all agents in one environment with merged weights; the memory of both compiled programs.
A row whose update would hold more than `limit` GiB of parameters, gradients and optimiser states
has counts alone. figure_3_adapters.csv has `adapters` agents that act at once, each with its own
adapter merged into one backbone: bytes and agents a second.

The task: observations of 16 random numbers without identities, five actions, episodes of 25 steps,
2 environments of 10 steps an update.
"""

import functools

import jax
import jax.numpy as jnp

from experiments import pictures
from lorasa_jax import config as configuration
from lorasa_jax import envs, machine, sharing
from lorasa_jax.analysis import resources
from lorasa_jax.envs.games import Game
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn.algorithms import update_of
from lorasa_jax.training import phases
from lorasa_jax.training.teams import build_teams
from lorasa_jax.values import close, number, whole_number

NAME, WIDTH = "crowd", 16
OPTIONS = {"schemes": "", "agents": "2+8+64+1024", "adapters": "10000", "limit": "8"}
KEYS = ("env.agent_ids=false", "algo.num_envs=2", "algo.rollout_length=10", "algo.chunk_length=10")
COPIES = 4  # of a trained parameter: itself, its gradient, Adam's two moments
BYTES, MIB, GIB = 4, 2**20, 2**30


def crowd(agents: int) -> Game:
    """Any number of agents that see noise; the reward is the share of first actions."""
    return Game(
        agents, WIDTH, envs.Discrete(5), 25,
        begin=lambda key: jax.random.normal(key, (agents, WIDTH)),
        observe=lambda memory, steps: memory,
        play=lambda key, memory, steps, actions: (
            jax.random.normal(key, (agents, WIDTH)), jnp.mean((actions == 0).astype(float)),
        ),
        optimum=25.0, random=5.0,
    )  # fmt: skip


def tables(request) -> list:
    """Measures, writes and draws; returns the paths."""
    with envs.REGISTRY.temporary():
        envs.register(NAME, crowd, {"agents": 2})
        names, counts = _chosen(request), _counts(request)
        adapters = whole_number(request.options["adapters"], "adapters")
        rows = [row(request, name, agents) for agents in counts for name in names]
        crowded = at_once(request, adapters)
    paths = [
        pictures.write_rows(request, rows, "figure_3_costs"),
        pictures.write_rows(request, [crowded], "figure_3_adapters"),
    ]
    return [*paths, *pictures.save(request, picture(rows), "figure_3_costs")]


def _chosen(request):
    known, text = sharing.REGISTRY.names(), request.options["schemes"]
    names = known if text == "all" else text.split("+")
    for name in names:
        if name not in known:
            raise ConfigError(f"schemes={text}: {name} is not known; {close(name, known)}")
    return names


def _counts(request):
    return [whole_number(text, "agents", least=2) for text in request.options["agents"].split("+")]


def _built(request, name, agents):
    """(configuration, teams): agents in pairs where there are clusters."""
    words = [f"env={NAME}", f"env.agents={agents}", f"sharing={name}", *KEYS, "total_steps=2000"]
    config = configuration.load([*words, *request.keys])
    clustered = sharing.REGISTRY.row(name).clustered
    return config, build_teams(config, tuple(i // 2 for i in range(agents)) if clustered else None)


def row(request, name: str, agents: int) -> dict:
    """One way of sharing with so many agents."""
    config, teams = _built(request, name, agents)
    actor, critic = (resources.team_parameters(teams[-1])[role] for role in ("actor", "critic"))
    one = resources.team_parameters(_built(request, "ps", agents)[1][-1])["actor"].total
    needed = (actor.trained + critic.trained) * COPIES * BYTES + (actor.frozen * BYTES)
    found = {
        "sharing": name, "agents": agents, "actor": actor.total, "actor_trained": actor.trained,
        "per_agent": max(actor.total - one, 0) / agents, "critic": critic.total,
    }  # fmt: skip
    measures = dict.fromkeys(
        ("update_seconds", "acting_seconds", "update_mib", "acting_mib", "compile_seconds"), ""
    )
    if needed <= number(request.options["limit"], "limit") * GIB:
        print(f"measuring {name} with {agents} agents", flush=True)
        measures = _measures(request, config, teams)
        jax.clear_caches()
    return {**found, **measures, "device": machine.name()}


def _measures(request, config, teams):
    turns = whole_number(request.options["turns"], "turns")
    progress = jax.jit(functools.partial(phases.until, config, teams, len(teams) - 1))()
    state = jax.tree.map(lambda x: x[0], progress.state)
    team = teams[-1]
    hp = config.algo_of(-1)
    update = resources.updating(state, team, hp, update_of(config.algo))
    acting = resources.acting(team, team.actor.scheme.weights(state.actor.banks), 1)
    seconds = resources.median_seconds({"update": update.call, "acting": acting.call}, turns)
    return {
        "update_seconds": seconds["update"], "acting_seconds": seconds["acting"],
        "update_mib": (update.bytes or 0) / MIB, "acting_mib": (acting.bytes or 0) / MIB,
        "compile_seconds": update.compile_seconds,
    }  # fmt: skip


def at_once(request, adapters: int) -> dict:
    """So many agents' adapters on one backbone, merged, acting at once in one environment."""
    config, teams = _built(request, "ps_lora", adapters)
    team = teams[-1]
    print(f"measuring {adapters} adapters at once", flush=True)

    def begin():
        return phases.start(jnp.uint32(0), team, config.algo_of(-1)).actor.banks

    banks = jax.jit(begin)()
    tree = jax.jit(lambda banks: team.actor.scheme.weights(banks)[0])(banks)
    acting = resources.acting(team, (tree, _axes(team)), 1)
    turns = whole_number(request.options["turns"], "turns")
    seconds = resources.median_seconds({"acting": acting.call}, turns)["acting"]
    return {
        "adapters": adapters,
        "stored_mib": sum(x.nbytes for x in jax.tree.leaves(banks)) / MIB,
        "acting_mib": (acting.bytes or 0) / MIB,
        "step_seconds": seconds,
        "agents_per_second": adapters / seconds,
        "device": machine.name(),
    }


def _axes(team):
    """Where weights have an agent axis, without computing them."""
    found = {}

    def weights(key):
        banks = team.actor.scheme.init(
            key, lambda key: resources.parameters(team.actor.network, key, team.actor.features)
        )
        tree, found["axes"] = team.actor.scheme.weights(banks)
        return tree

    jax.eval_shape(weights, jax.random.key(0))
    return found["axes"]


@pictures.styled
def picture(rows: list[dict]):
    """Parameters, seconds and memory over the number of agents, a line for each way of sharing."""
    panels = {
        "actor": "parameters of the actors", "update_seconds": "seconds an update",
        "acting_seconds": "seconds a step of all agents", "update_mib": "MiB of an update",
    }  # fmt: skip
    drawn, axes = pictures.figure(1, len(panels), 3.2, 3.0)
    names = list(dict.fromkeys(row["sharing"] for row in rows))
    colours = dict(zip(names, pictures.palette(len(names)), strict=True))
    for axis, (key, title) in zip(axes[0], panels.items(), strict=True):
        for name in names:
            points = [
                (r["agents"], r[key])
                for r in rows
                if r["sharing"] == name and r[key] not in ("", 0)
            ]
            if points:
                label = pictures.name_of(name)
                axis.plot(*zip(*points, strict=True), "o-", ms=3, color=colours[name], label=label)
        axis.set(title=title, xlabel="agents", xscale="log", yscale="log")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 8))
    return drawn
