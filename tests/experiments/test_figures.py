"""Every figure's command at toy size, on a robot and on a map; what it writes is checked."""

import itertools
import json
import os
import re
import shlex
import signal

import matplotlib
import numpy as np
import pytest
from PIL import Image

import lorasa_jax
from experiments import (
    cells,
    figure_2,
    figure_3,
    figure_4,
    figure_5,
    figure_8,
    figures_6_7,
    figures_9_20,
    games,
    learning,
    specialisation,
    tables_10_13,
    training,
)
from experiments.pictures import read_rows
from experiments.training import Interrupted
from lorasa_jax import config as configuration
from lorasa_jax import run
from lorasa_jax import sharing as ways
from lorasa_jax.analysis import curves, weights
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn.play import EpisodeResults
from lorasa_jax.training import reporting, runs
from lorasa_jax.training.reporter import Reporter

TINY = [
    "seeds=2", "total_steps=60", "switch_at=20", "network.kind=ff", "network.hidden=8",
    "algo.num_envs=2", "algo.rollout_length=10", "algo.epochs=1", "eval_episodes=1", "eval_every=1",
    "sharing.rank=2",
]  # fmt: skip
SINGLE = ["sharing=ps", "total_steps=60", *TINY[3:-1]]
ROBOT = ["env.engine=native", *TINY]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory whose runs all figures share."""
    there = tmp_path_factory.mktemp("figures")
    before = os.getcwd()
    os.chdir(there)
    yield there
    os.chdir(before)


@pytest.fixture(scope="module")
def robot(place):
    """Figure 2 of Ant 4x2; its arguments."""
    arguments = ["cells=ant_4x2/mappo/ps+ps_lora", *ROBOT]
    figure_2.main(arguments)
    return arguments


@pytest.fixture(scope="module")
def lora(robot):
    """The run of Ant 4x2 with adapters."""
    return next(
        path for path in cells.Path("runs").iterdir() if "ant_4x2-mappo-ps_lora" in path.name
    )


def same_command(figure, arguments):
    """Whether CSV, PNG and SVG of a figure name the command that made them."""
    folder = cells.Path("outputs") / figure
    command = shlex.join(["python", "-m", f"experiments.{figure}", *arguments])
    for path in folder.glob("*.csv"):
        assert path.read_text().splitlines()[0] == f"# {command}", path
    pictures = sorted(folder.glob("*.png"))
    assert pictures
    for path in pictures:
        with Image.open(path) as image:
            assert image.info["Description"] == command
            assert len(np.unique(np.asarray(image))) > 8, "an empty picture"
        assert command.split()[2] in path.with_suffix(".svg").read_text()
    return {path.stem: read_rows(path) for path in folder.glob("*.csv")}


@pytest.mark.long
@pytest.mark.full
def test_figure_2_holds_every_evaluation_and_its_statistics(robot):
    settings = dict(matplotlib.rcParams)
    tables = same_command("figure_2", robot)
    assert dict(matplotlib.rcParams) == settings, "a figure's style is its own"
    rows = tables["figure_2"]
    for sharing in ("ps", "ps_lora"):
        own = [row for row in rows if row["sharing"] == sharing]
        assert sorted((int(row["seed"]), int(row["env_steps"])) for row in own) == [
            (seed, step) for seed in (0, 1) for step in (0, 20, 40, 60)
        ]
    run = next(path for path in cells.Path("runs").iterdir() if "-ps-" in path.name)
    written = {
        (row["seed"], row["env_steps"]): row["eval_return"] for row in reporting.read_metrics(run)
    }
    read = {
        (int(row["seed"]), int(row["env_steps"])): float(row["return"])
        for row in rows
        if row["sharing"] == "ps"
    }
    assert read == written
    last = np.array([[written[seed, 60]] for seed in (0, 1)])
    row = next(
        row
        for row in tables["figure_2_summary"]
        if row["sharing"] == "ps" and row["env_steps"] == "60"
    )
    assert float(row["median"]) == pytest.approx(np.median(last))
    assert float(row["iqm"]) == pytest.approx(curves.iqm(last)[0])
    assert float(row["iqm_low"]) <= float(row["iqm"]) <= float(row["iqm_high"])
    pairs = {
        (row["sharing"], row["over"]): float(row["probability"])
        for row in tables["figure_2_improvement"]
    }
    assert len(pairs) == 2
    ends = {}  # of every seed: the mean of its last five evaluations, of which there are four
    for row in rows:
        ends.setdefault((row["sharing"], row["seed"]), []).append(float(row["return"]))
    between = [np.mean(ends["ps_lora", seed]) - np.mean(ends["ps", seed]) for seed in "01"]
    row = next(row for row in tables["figure_2_improvement"] if row["sharing"] == "ps_lora")
    assert float(row["difference"]) == pytest.approx(np.mean(between))
    low, high = float(row["difference_low"]), float(row["difference_high"])
    assert min(between) - 1e-9 <= low <= np.mean(between) <= high <= max(between) + 1e-9
    assert pairs["ps", "PS+LoRA"] + pairs["ps_lora", "PS"] == pytest.approx(1.0)


@pytest.mark.long
@pytest.mark.full
def test_figure_2_joins_runs_of_single_seeds(robot):
    """What is drawn of runs that are given is what is drawn of their cells."""
    folders = sorted(cells.Path("runs").glob("ant_4x2-mappo-ps*"))
    figure_2.main([f"run={','.join(map(str, folders))}", "out=outputs/given"])
    before, after = (
        {
            (row["sharing"], row["keys"], row["seed"], row["env_steps"]): row["return"]
            for row in read_rows(cells.Path(f"outputs/{name}/figure_2.csv"))
        }
        for name in ("figure_2", "given")
    )
    assert before == after
    summary = json.loads((folders[0] / "summary.json").read_text())
    again = configuration.load(shlex.split(summary["command"])[3:])
    assert again.out == str(folders[0]) and again == runs.configured(folders[0])
    for seed in (7, 8):
        run.execute(configuration.load(["env=probe_memory", *SINGLE, f"seed={seed}"]))
    run.execute(configuration.load(["env=probe_memory", *SINGLE, "seed=7", "algo.clip=0.1"]))
    folders = sorted(cells.Path("runs").glob("probe_memory-*"))
    figure_2.main([f"run={','.join(map(str, folders))}", "out=outputs/given"])
    table = read_rows(cells.Path("outputs/given/figure_2.csv"))
    assert {(row["keys"], row["seed"]) for row in table} == {
        ("algo.clip=0.2", "7"), ("algo.clip=0.2", "8"), ("algo.clip=0.1", "7"),
    }  # fmt: skip
    with pytest.raises(ConfigError, match="has a seed twice"):
        figure_2.main([f"run={folders[0]},{folders[0]}"])


@pytest.fixture
def forgotten():
    """What is registered meanwhile is forgotten."""
    with ways.REGISTRY.temporary():
        yield


@pytest.mark.full
def test_keys_of_registered_ways_of_sharing_reach_the_cells_that_have_them(forgotten):
    ways.register("teams", ways.REGISTRY.row("ps").make, like="ps", options={"k": 2})
    arguments = ["cells=ant_4x2/mappo/ps+teams+ps_lora", *ROBOT, "sharing.k=5"]
    request = cells.request("figure_2", arguments, figure_2.CELLS, **learning.OPTIONS)
    planned = {one.cell.sharing: one.config.sharing for one in training.plan(request)}
    assert planned["teams"]["k"] == 5 and planned["ps_lora"]["rank"] == 2
    assert "k" not in planned["ps"] and "k" not in planned["ps_lora"]
    arguments = ["cells=ant_4x2/mappo+a2po/ps", *ROBOT, "algo.minibatches=2", "algo.trace=none"]
    request = cells.request("figure_2", arguments, figure_2.CELLS, **learning.OPTIONS)
    algos = [one.config.algo for one in training.plan(request)]
    assert (algos[0].minibatches, algos[1].trace) == (2, "none")


@pytest.mark.full
def test_adapters_begin_from_the_shared_run(robot, lora):
    config = runs.configured(lora)
    donor, _, step = config.init_from.rpartition("@")
    assert "-ps-" in donor and step == "20"
    rows = read_rows(cells.Path("outputs/figure_2/figure_2.csv"))

    def early(sharing):
        return [
            (row["seed"], row["env_steps"], row["return"])
            for row in rows
            if row["sharing"] == sharing and int(row["env_steps"]) <= 20
        ]

    assert early("ps") == early("ps_lora")
    assert min(row["env_steps"] for row in reporting.read_metrics(lora)) == 20


@pytest.mark.full
def test_what_is_finished_is_not_trained_again(robot, monkeypatch):
    def never(config):
        raise AssertionError("trained again")

    before = cells.Path("outputs/figure_2/figure_2.csv").read_bytes()
    monkeypatch.setattr(training.run, "execute", never)
    figure_2.main(robot)
    assert cells.Path("outputs/figure_2/figure_2.csv").read_bytes() == before


@pytest.mark.long
@pytest.mark.full
def test_interrupted_at_any_point_and_given_again_ends_alike(robot, monkeypatch, tmp_path):
    """Signals in the first and in the second run; the command is given until it is done."""
    whole = cells.Path("outputs/figure_2").absolute()
    evaluated = Reporter.evaluated
    counter = itertools.count()

    def interrupting(self, rows):
        evaluated(self, rows)
        if next(counter) in (2, 4):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Reporter, "evaluated", interrupting)
    monkeypatch.chdir(tmp_path)
    stops = 0
    while True:
        try:
            figure_2.main(robot)
            break
        except Interrupted:
            stops += 1
    assert stops == 2
    for path in whole.glob("*.csv"):
        assert (cells.Path("outputs/figure_2") / path.name).read_bytes() == path.read_bytes()


@pytest.mark.long
@pytest.mark.full
def test_figure_4_varies_switch_rank_and_layers_from_one_pretraining(robot, place):
    arguments = [
        "cells=ant_4x2/mappo", "switches=20", "ranks=2", "placements=last,all", *ROBOT,
    ]  # fmt: skip
    figure_4.main(arguments)
    rows = same_command("figure_4", arguments)["figure_4"]
    seen = {(row["question"], row["sharing"], row["keys"]) for row in rows}
    assert seen == {
        ("switch", "ps", ""), ("switch", "ps_lora", "switch_at=20"),
        ("rank", "ps", ""),
        ("rank", "ps_lora", "sharing.rank=2"), ("placement", "ps", ""),
        ("placement", "ps_lora", "sharing.targets=[linear_6,linear_7]"),
        ("placement", "ps_lora", ""),
    }  # fmt: skip
    trained = [
        path for path in cells.Path("runs").iterdir() if "ant_4x2-mappo-ps_lora" in path.name
    ]
    starts = [runs.configured(path).init_from for path in trained]
    shared = next(path for path in cells.Path("runs").iterdir() if "ant_4x2-mappo-ps-" in path.name)
    assert starts == [f"{shared}@20"] * 2  # one placement more: the rest was trained before


@pytest.mark.long
@pytest.mark.full
def test_figures_6_and_7_tell_adapters_from_ids(robot):
    arguments = ["cells=ant_4x2/mappo/ps+ps_lora", "length=6", "envs=2", *ROBOT]
    figures_6_7.main(arguments)
    tables = same_command("figures_6_7", arguments)
    rows = tables["figures_6_7"]
    pairs = [(f"agent_{i}", f"agent_{j}") for i in range(4) for j in range(i + 1, 4)]
    for sharing in ("ps", "ps_lora"):
        own = [row for row in rows if row["sharing"] == sharing and row["seed"] == "1"]
        assert [(row["agent"], row["other"]) for row in own] == pairs
        assert all(float(row["wasserstein"]) > 0 for row in own)
        weights_only = [float(row["weights_only"]) for row in own]
        if sharing == "ps":
            assert max(weights_only) < 1e-5
        else:
            assert min(weights_only) > 1e-5
        snd = next(
            row
            for row in tables["figures_6_7_diversity"]
            if row["sharing"] == sharing and row["seed"] == "1"
        )
        assert float(snd["snd"]) == pytest.approx(np.mean([float(r["wasserstein"]) for r in own]))


@pytest.mark.full
def test_figure_8_follows_the_caption(lora):
    arguments = [f"run={lora}"]
    figure_8.main(arguments)
    rows = same_command("figure_8", arguments)["figure_8"]
    net = weights.matrices(lorasa_jax.load(lora, seed=1).banks["net"])
    flat = np.abs(np.concatenate([np.ravel(np.asarray(x, float)) for x in net.values()]))
    own = [r for r in rows if (r["seed"], r["weights"], r["scale"]) == ("1", "shared", "own")]
    assert [float(row["threshold"]) for row in own] == pytest.approx(
        np.linspace(flat.min(), flat.max(), 100)
    )
    assert [float(row["percent"]) for row in own] == pytest.approx(
        [100 * np.mean(flat >= t) for t in np.linspace(flat.min(), flat.max(), 100)]
    )
    assert {(r["weights"], r["scale"]) for r in rows} == {
        ("shared", "own"), ("delta", "own"), ("delta", "common"),
    }  # fmt: skip


@pytest.mark.full
def test_figures_9_to_20_have_every_layer_agent_and_unit(lora):
    arguments = [f"run={lora}", "length=6", "envs=2"]
    figures_9_20.main(arguments)
    tables = same_command("figures_9_20", arguments)
    rows = [row for row in tables["figures_9_20"] if row["seed"] == "0"]
    layers = dict.fromkeys(row["layer"] for row in rows)
    assert list(layers) == ["linear_1", "linear_2", "linear_3", "linear_6", "linear_7"]
    units = {layer: {int(r["unit"]) for r in rows if r["layer"] == layer} for layer in layers}
    assert units["linear_1"] == set(range(8))
    agents = dict.fromkeys(row["agent"] for row in rows)
    assert list(agents) == ["shared", "agent_0", "agent_1", "agent_2", "agent_3"]
    apart = {
        (row["layer"], row["agent"]): float(row["divergence"])
        for row in tables["figures_9_20_divergence"]
        if row["seed"] == "0"
    }
    shared, agent = (
        np.array([float(r["activation"]) for r in rows if (r["layer"], r["agent"]) == at])
        for at in (("linear_6", "shared"), ("linear_6", "agent_2"))
    )
    expected = np.linalg.norm(agent - shared) / np.linalg.norm(shared)
    assert apart["linear_6", "agent_2"] == pytest.approx(expected, rel=1e-4)
    assert apart["linear_6", "agent_2"] > 0


@pytest.mark.full
def test_tables_10_to_13_add_up(robot):
    arguments = ["cells=ant_4x2/mappo", "switches=20", "ranks=2", *ROBOT]
    tables_10_13.main(arguments)
    rows = same_command("tables_10_13", arguments)["tables_10_13"]
    adapted = [row for row in rows if row["sharing"] == "ps_lora"]
    assert len(adapted) == 2 * 2 * 6 * 4  # runs, seeds, layers and log_std, agents
    for row in rows:
        shared, merged, delta, inner = (
            float(row[name]) for name in ("shared", "merged", "delta", "inner")
        )
        assert merged**2 == pytest.approx(shared**2 + delta**2 + 2 * inner, rel=1e-4)
        assert (delta > 0) == (row["sharing"] == "ps_lora")
    text = cells.Path("outputs/tables_10_13/tables_10_13.md").read_text()
    mean = np.mean(
        [
            float(row["delta"])
            for row in adapted
            if row["layer"] == "linear_2" and row["keys"] == "switch_at=20"
        ]
    )
    line = next(line for line in text.splitlines() if line.startswith("| linear_2"))
    assert f"{mean:.2f}" in line


@pytest.mark.full
def test_specialisation_exchanges_adapters(lora, monkeypatch):
    """Returns tell which weights played: here a return is a sum over the agents' own weights."""
    policy = lorasa_jax.load(lora, seed=1)
    agents = np.arange(policy.env().num_agents)

    def fingerprints(key, team, actor_weights, *, episodes):
        kernel = actor_weights[0]["linear_2"]["kernel"].sum((1, 2))
        results = kernel @ (1.0 + agents)
        return EpisodeResults(results[None].repeat(episodes), None, None)

    monkeypatch.setattr(specialisation, "play", fingerprints)
    arguments = [f"run={lora}", "episodes=2", "exchanges=100"]
    specialisation.main(arguments)
    rows = same_command("specialisation", arguments)["specialisation"]
    scheme, banks = policy.team.actor.scheme, policy.banks
    merged, shared = (
        np.asarray(function(scheme, banks)["linear_2"]["kernel"], float).sum((1, 2))
        for function in (weights.merged, weights.backbone)
    )
    found = {}
    for row in rows:
        if row["seed"] == "1":
            found.setdefault(row["team"], []).append(float(row["return"]))
    near = lambda values: pytest.approx(values, rel=1e-4, abs=1e-4)  # noqa: E731
    assert found["own"] == near([merged @ (1.0 + agents)])
    assert found["uniform"] == near([x * (1.0 + agents).sum() for x in merged])
    assert found["common"] == near([merged.mean() * (1.0 + agents).sum()])
    assert found["backbone"] == near([shared @ (1.0 + agents)])
    others = [
        merged[list(order)] @ (1.0 + agents)
        for order in itertools.permutations(agents)
        if (np.array(order) != agents).all()
    ]
    assert len(others) == 9
    assert sorted(found["exchanged"]) == near(sorted(others))
    text = cells.Path("outputs/specialisation/specialisation.md").read_text()
    assert f"| {np.median(others):,.0f} (" in text


@pytest.mark.long
@pytest.mark.full
@pytest.mark.upstream
def test_specialisation_plays_and_counts_wins(place):
    arguments = ["cells=smax_3m/mappo/ps_lora", "episodes=2", "exchanges=1", *TINY]
    specialisation.main(arguments)
    rows = same_command("specialisation", arguments)["specialisation"]
    teams = ["own", "exchanged", *["uniform"] * 3, "common", "backbone"]
    assert [(row["seed"], row["team"]) for row in rows] == [(s, t) for s in "01" for t in teams]
    assert all(float(row["win_rate"]) in (0.0, 0.5, 1.0) for row in rows)
    assert all(np.isfinite(float(row["return"])) for row in rows)


# Numbers of the paper's architecture, counted by hand (authors' log-std, StarCraft's sizes):
# PS actor, PS critic, NPS actors, MTL actor, one agent's adapters of rank 8, agents.
COUNTS = {
    "ant_2x4": (41972, 45667, 83944, 42236, 8372, 2),
    "ant_4x2": (40586, 45799, 162344, 40982, 8090, 4),
    "ant_8x1": (40124, 46063, 320992, 40586, 7977, 8),
    "smac_2s3z": (48363, 49627, 241815, 51223, 9432, 5),
    "smac_3s5z": (55686, 57943, 445488, 62056, 10320, 8),
    "smac_MMM2": (63734, 66919, 637340, 74264, 11296, 10),
}


@pytest.mark.long
@pytest.mark.full
def test_figure_3_counts_as_the_architecture_does(place):
    envs = "+".join(COUNTS)
    arguments = ["measure=false", f"cells={envs}/mappo/ps+nps+mtl+ps_lora"]
    figure_3.main(arguments)
    table = same_command("figure_3", arguments)["figure_3"]
    for env, (ps, critic, nps, mtl, adapter, agents) in COUNTS.items():
        sizes = "starcraft" if env.startswith("smac") else "own"
        rows = {row["sharing"]: row for row in table if (row["env"], row["sizes"]) == (env, sizes)}
        assert int(rows["ps"]["actor_trained"]) == ps
        assert int(rows["ps"]["critic"]) == critic
        assert int(rows["nps"]["actor_trained"]) == nps
        assert int(rows["mtl"]["actor"]) == mtl
        assert int(rows["ps_lora"]["adapters_per_agent"]) == adapter
        assert int(rows["ps_lora"]["actor_trained"]) == agents * adapter
        assert int(rows["ps_lora"]["actor"]) == ps + agents * adapter


@pytest.mark.long
@pytest.mark.full
def test_games_are_drawn_beside_random_and_best_play(place):
    games.main(["cells=specialisation_2+synchronisation_2/mappo/ps", "out=outputs/games", *TINY])
    rows = read_rows(cells.Path("outputs/games/games.csv"))
    assert [(row["game"], row["agents"], row["seeds"]) for row in rows] == [
        ("specialisation", "2", "2"), ("synchronisation", "2", "2"),
    ]  # fmt: skip
    assert all(float(row["random"]) == 0.75 and float(row["optimum"]) == 1.0 for row in rows)
    assert all(float(row["least"]) <= float(row["median"]) <= float(row["most"]) for row in rows)
    assert cells.Path("outputs/games/games.png").exists()


@pytest.mark.long
@pytest.mark.full
def test_figure_3_counts_the_cost_of_more_agents(place):
    small = ["network.kind=ff", "network.hidden=8", "algo.epochs=1"]
    figure_3.main(
        [
            "schemes=ps+nps+ps_lora",
            "agents=2+4",
            "adapters=6",
            "turns=1",
            "out=outputs/costs",
            *small,
        ]
    )
    rows = read_rows(cells.Path("outputs/costs/figure_3_costs.csv"))
    assert [(row["sharing"], row["agents"]) for row in rows] == [
        (name, agents) for agents in "24" for name in ("ps", "nps", "ps_lora")
    ]
    assert all(float(row["update_seconds"]) > 0 < float(row["acting_seconds"]) for row in rows)
    actor = {(row["sharing"], row["agents"]): int(row["actor"]) for row in rows}
    assert actor["nps", "4"] == 4 * actor["ps", "4"] and actor["ps", "4"] == actor["ps", "2"]
    (crowded,) = read_rows(cells.Path("outputs/costs/figure_3_adapters.csv"))
    assert crowded["adapters"] == "6" and float(crowded["agents_per_second"]) > 0
    assert cells.Path("outputs/costs/figure_3_costs.png").exists()


@pytest.mark.long
@pytest.mark.full
def test_figure_3_measures_once(place, monkeypatch):
    small = ["network.kind=ff", "network.hidden=8", "algo.num_envs=2", "algo.rollout_length=10"]
    arguments = [
        "cells=specialisation_4/mappo/ps+seps",
        "turns=1",
        "batch=3",
        "out=outputs/small",
        *small,
    ]
    figure_3.main(arguments)
    rows = read_rows(cells.Path("outputs/small/figure_3_measured.csv"))
    assert [row["sharing"] for row in rows] == ["ps", "seps"]
    assert all(float(row["update_seconds"]) > 0 < float(row["acting_seconds"]) for row in rows)
    assert float(rows[0]["update_ratio"]) == 1.0

    def never(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(figure_3, "panel", never)
    figure_3.main(arguments)
    assert read_rows(cells.Path("outputs/small/figure_3_measured.csv")) == rows


@pytest.mark.long
@pytest.mark.full
@pytest.mark.upstream
def test_maps_show_wins_in_figure_2_and_returns_in_figure_5(place):
    arguments = ["cells=smax_3m/mappo/ps", "out=outputs/maps", *TINY]
    figure_2.main(arguments)
    figure_5.main(arguments)
    wins, returns = (
        read_rows(cells.Path(f"outputs/maps/{figure}_summary.csv"))
        for figure in ("figure_2", "figure_5")
    )
    assert {row["metric"] for row in wins} == {"win_rate"}
    assert {row["metric"] for row in returns} == {"return"}
    assert all(0 <= float(row["median"]) <= 1 for row in wins)
    assert read_rows(cells.Path("outputs/maps/figure_2.csv")) == read_rows(
        cells.Path("outputs/maps/figure_5.csv")
    )


def test_commands_are_told_instead(place, capsys):
    figure_2.main(["cells=ant_4x2/mappo/ps+ps_lora", "show=commands", *TINY, "seed=5"])
    lines = capsys.readouterr().out.splitlines()
    assert lines.pop(1) == "# when those have finished:"
    assert len(lines) == 2 and all(x.startswith("python -m lorasa_jax.run env=") for x in lines)
    assert "keep_at=[20]" in shlex.split(lines[0])
    (start,) = (word for word in shlex.split(lines[1]) if word.startswith("init_from="))
    assert "/runs/" in start and start.endswith("@20")
    assert not list(cells.Path("runs").glob("*seed5*"))


@pytest.mark.parametrize(
    ("main", "arguments", "words"),
    [
        (figure_2.main, ["cells=ant_4x2/ppo"], "algo ppo of cells is not known"),
        (figure_2.main, ["cells=ant_4x2/mappo/lora"], "sharing lora of cells is not known"),
        (figure_2.main, ["cells=no_such_env/mappo/ps"], "env=no_such_env is not known"),
        (figure_2.main, ["seeds=0"], "seeds=0 must be at least 1"),
        (figure_2.main, ["cells"], "not of the form key=value"),
        (figure_2.main, ["totl_steps=1"], "totl_steps"),
        (figure_2.main, ["show=all"], "show=commands"),
        (figure_2.main, ["last=0"], "last=0 must be at least 1"),
        (figure_2.main, ["cells=ant_4x2/mappo/ps", "algo.trace=none"], "of the figure's cells"),
        (figure_4.main, ["placements=middle"], "placements=middle is not known"),
        (figure_8.main, ["run=nowhere"], "holds no run"),
        (specialisation.main, ["exchanges=0"], "exchanges=0 must be at least 1"),
        (figure_3.main, ["measure=maybe"], "true or false"),
        (figure_3.main, ["schemes=pps"], "schemes=pps: pps is not known"),
        (figure_3.main, ["show=commands"], "drop show=commands"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_in_one_sentence(place, main, arguments, words):
    with pytest.raises(ConfigError) as caught:
        main(arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.full
def test_runs_without_adapters_and_unfinished_ones_are_refused(robot, tmp_path):
    shared = next(path for path in cells.Path("runs").iterdir() if "ant_4x2-mappo-ps-" in path.name)
    with pytest.raises(ConfigError, match="has no LoRA phase"):
        figure_8.main([f"run={shared}"])
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_text((shared / "config.yaml").read_text())
    with pytest.raises(ConfigError, match=re.escape("is not finished (step 0 of 60)")):
        figures_9_20.main([f"run={unfinished}"])
