"""Figure 3: what every way of sharing costs: parameters, growth with agents, seconds, memory.

    python -m experiments.figure_3 [cells=ant_4x2/mappo/ps+nps+ps_lora] [turns=9] [batch=1000]
        [measure=false]
    python -m experiments.figure_3 schemes=all [agents=2+8+64+1024] [adapters=10000]

The second form measures by the number of agents, on a synthetic task: see costs.py.

Nothing is trained, hence seeds= and total_steps= change nothing. figure_3.csv counts parameters of
the finished phase, as training has them. Maps come twice: with the suite's own sizes on SMAX, and
with StarCraft's sizes of observations, states and actions, which the paper's networks had.

figure_3_measured.csv has medians over `turns` turns, in one process, of one update of the finished
phase (rollout included) and of one step of all agents in `batch` environments with merged weights;
ratios are to full sharing of the same environment in the same turns; memory is that of the compiled
programs. What was measured is kept and not measured again (figure_3_measured.json): delete that to
do so. Agents are grouped in pairs for SePS.
"""

import functools
import json

import jax
from matplotlib.ticker import MaxNLocator

from experiments import cells, command, costs, pictures, training
from lorasa_jax import config as configuration
from lorasa_jax import envs, machine, sharing
from lorasa_jax.analysis import resources
from lorasa_jax.errors import ConfigError
from lorasa_jax.files import write_atomically
from lorasa_jax.learn.algorithms import update_of
from lorasa_jax.policy.distributions import Categorical
from lorasa_jax.training import phases
from lorasa_jax.training.teams import build_teams
from lorasa_jax.values import whole_number

ENVS = ("ant_2x4", "ant_4x2", "ant_8x1", "smac_2s3z", "smac_3s5z", "smac_MMM2")
CELLS = cells.grid(ENVS, algos=("mappo",))
MIB = 2**20
# Sizes of observation and state, ids included, and number of actions in SMAC itself.
STARCRAFT = {
    "smac_2s3z": (144, 173, 11), "smac_3s5z": (252, 299, 14), "smac_1c3s5z": (310, 363, 15),
    "smac_3s5z_vs_3s6z": (268, 318, 15), "smac_MMM2": (370, 435, 18),
}  # fmt: skip


def main(arguments: list[str]) -> None:
    request = cells.request(
        "figure_3",
        arguments,
        CELLS,
        turns="9",
        batch="1000",
        measure="true",
        total_steps="",
        **costs.OPTIONS,
    )
    if request.show:
        raise ConfigError(
            "figure_3 trains no runs whose commands could be shown; drop show=commands."
        )
    if request.options["schemes"]:
        pictures.print_paths(costs.tables(request))
        return
    measure = request.options["measure"]
    if measure not in ("true", "false"):
        raise ConfigError(f"measure={measure} must be true or false.")
    built = {cell: build(request, cell) for cell in request.cells}
    counted = [count_row(cell, built[cell][1][-1]) for cell in request.cells]
    with_starcraft_sizes = [
        count_row(cell, starcraft(*built[cell], STARCRAFT[cell.env]), "starcraft")
        for cell in request.cells
        if cell.env in STARCRAFT
    ]
    paths = [pictures.write_rows(request, counted + with_starcraft_sizes)]
    measured = []
    if measure == "true":
        measured = _measured(request, built)
        paths.append(pictures.write_rows(request, measured, "figure_3_measured"))
    pictures.print_paths([*paths, *pictures.save(request, picture(counted, measured))])


def build(request, cell):
    """(configuration, teams) of a cell."""
    words = [f"env={cell.env}", f"algo={cell.algo}", f"sharing={cell.sharing}"]
    words += [word for word in request.keys if training.applies(word, cell)]
    config = configuration.load(words)
    groups = None
    if sharing.REGISTRY.row(cell.sharing).clustered:
        agents = envs.make(**config.env).num_agents
        groups = tuple(i // 2 for i in range(agents))
    return config, build_teams(config, groups)


def starcraft(config, teams, sizes):
    """The last phase's team with networks for other sizes: (observation, state, actions)."""
    obs, state, actions = sizes
    team, network = teams[-1], config.network
    actor = network.actor(Categorical(actions))
    return team._replace(
        actor=team.actor._replace(network=actor, features=obs),
        critic=team.critic._replace(features=state),
    )


def count_row(cell, team, sizes="own") -> dict:
    """Parameters of a team; those of one agent's adapters where there are any."""
    networks = resources.team_parameters(team)
    actor, critic = networks["actor"], networks["critic"]
    return {
        "env": cell.env, "algo": cell.algo, "sharing": cell.sharing, "sizes": sizes,
        "agents": team.env.num_agents,
        "actor_trained": actor.trained, "actor_frozen": actor.frozen, "actor": actor.total,
        "adapters_per_agent": actor.entries.get("adapters", 0),
        "critic": critic.total,
    }  # fmt: skip


def _measured(request, built) -> list[dict]:
    """The rows of all panels, measured or as they were before."""
    path = request.out / "figure_3_measured.json"
    device = machine.name()
    setting = f"{device}; {request.options['turns']} turns; batch {request.options['batch']}; "
    setting += " ".join(request.keys)
    kept = json.loads(path.read_text()) if path.exists() else {}
    rows = []
    for env, algo in dict.fromkeys((cell.env, cell.algo) for cell in request.cells):
        here = [cell for cell in request.cells if (cell.env, cell.algo) == (env, algo)]
        name = f"{env}/{algo}/{'+'.join(cell.sharing for cell in here)}; {setting}"
        if name not in kept:
            print(f"measuring {env} {algo}", flush=True)
            kept[name] = panel(request, {cell: built[cell] for cell in here})
            request.out.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(kept, indent=2) + "\n")
            jax.clear_caches()
        rows += [row | {"device": device} for row in kept[name]]
    return rows


def panel(request, built) -> list[dict]:
    """Measures all ways of sharing of one environment and algorithm, in turns."""
    turns, batch = (whole_number(request.options[key], key) for key in ("turns", "batch"))
    updates, steps = {}, {}
    for cell, (config, teams) in built.items():
        progress = jax.jit(functools.partial(phases.until, config, teams, len(teams) - 1))()
        state = jax.tree.map(lambda x: x[0], progress.state)
        hp, team = config.algo_of(-1), teams[-1]
        updates[cell] = resources.updating(state, team, hp, update_of(config.algo))
        merged = team.actor.scheme.weights(state.actor.banks)
        steps[cell] = resources.acting(team, merged, batch)
    seconds = resources.median_seconds({c: m.call for c, m in updates.items()}, turns)
    acting = resources.median_seconds({c: m.call for c, m in steps.items()}, turns)
    base = next((cell for cell in built if cell.sharing == "ps"), next(iter(built)))
    return [
        {
            "env": cell.env, "algo": cell.algo, "sharing": cell.sharing,
            "update_seconds": seconds[cell], "update_ratio": seconds[cell] / seconds[base],
            "acting_seconds": acting[cell], "acting_ratio": acting[cell] / acting[base],
            "update_mib": (updates[cell].bytes or 0) / MIB,
            "acting_mib": (steps[cell].bytes or 0) / MIB,
            "compile_seconds": updates[cell].compile_seconds,
        }
        for cell in built
    ]  # fmt: skip


@pictures.styled
def picture(counted: list[dict], measured: list[dict]):
    """Counts by environment and by agents; seconds and memory where they were measured."""
    panels = [("actor_trained", "trained parameters (actors)", counted, True)]
    if measured:
        panels += [
            ("update_seconds", "seconds an update", measured, False),
            ("acting_seconds", "seconds a step of the batch", measured, False),
            ("update_mib", "MiB of an update's program", measured, False),
        ]
    columns = 3 if measured else 2
    rows_of_panels = -(-(len(panels) + 1) // columns)
    drawn, axes = pictures.figure(rows_of_panels, columns, 3.4, 2.6)
    for axis in axes.flat[len(panels) + 1 :]:
        axis.set_axis_off()
    for axis, (key, title, rows, log) in zip(axes.flat, panels, strict=False):
        _bars(axis, rows, key, log)
        axis.set_title(title)
    _growth(axes.flat[len(panels)], counted)
    handles, names = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, names, loc="outside lower center", ncols=len(names))
    return drawn


def _bars(axis, rows, key, log):
    places = list(dict.fromkeys((row["env"], row["algo"]) for row in rows))
    schemes = list(dict.fromkeys(row["sharing"] for row in rows))
    width = 0.8 / len(schemes)
    for i, scheme in enumerate(schemes):
        values = {(row["env"], row["algo"]): row[key] for row in rows if row["sharing"] == scheme}
        x = [
            j + (i - (len(schemes) - 1) / 2) * width for j, at in enumerate(places) if at in values
        ]
        y = [values[at] for at in places if at in values]
        colour, name = pictures.colour_of(scheme), pictures.name_of(scheme)
        if log:  # a bar needs a zero to stand on
            axis.plot(x, y, "o", color=colour, ms=4, label=name)
        else:
            axis.bar(x, y, width, color=colour, label=name)
    algos = {algo for _, algo in places}
    names = [env if len(algos) == 1 else f"{env} {algo}" for env, algo in places]
    axis.set_xticks(range(len(places)), names, rotation=30, ha="right")
    axis.set_yscale("log") if log else axis.set_ylim(bottom=0)


def _growth(axis, rows):
    """Trained parameters over the number of agents, a line for each family of environments."""
    families = dict.fromkeys(row["env"].partition("_")[0] for row in rows)
    for family, style in zip(families, ("o-", "s--", "^:", "v-."), strict=False):
        for scheme in dict.fromkeys(row["sharing"] for row in rows):
            points = sorted(
                (row["agents"], row["actor_trained"])
                for row in rows
                if row["sharing"] == scheme and row["env"].partition("_")[0] == family
            )
            if points:
                axis.plot(*zip(*points, strict=True), style, ms=3, color=pictures.colour_of(scheme))
    axis.set_title("trained parameters by number of agents")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("agents (" + ", ".join(families) + ")")
    axis.set_yscale("log")


if __name__ == "__main__":
    command.run(main)
