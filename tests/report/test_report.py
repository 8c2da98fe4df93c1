"""Reports of tiny runs: numbers against the analyses and metrics, pages in a headless browser."""

import base64
import html
import io
import json
import re
import shutil
from html.parser import HTMLParser

import jax
import numpy as np
import pytest
from PIL import Image

import lorasa_jax
from lorasa_jax.analysis import activations, diversity, weights
from lorasa_jax.analysis.distances import CATEGORICAL, GAUSSIAN
from lorasa_jax.analysis.observations import collect
from lorasa_jax.envs.mamujoco.replay.scene import palette
from lorasa_jax.policy.networks import LAYERS_OF
from lorasa_jax.report import command, page, panels, story, table
from lorasa_jax.report.learning import learning
from lorasa_jax.training import reporting, runs

NAMES = "ant", "battle", "shared"
# StarCraft compiles for long.
BATTLE_LAST = (
    "shared", pytest.param("ant", marks=pytest.mark.full),
    pytest.param("battle", marks=pytest.mark.long),
)  # fmt: skip
LAYERS = {"ant": LAYERS_OF["ff"], "battle": LAYERS_OF["gru"], "shared": LAYERS_OF["ff"]}
AGENTS = {"ant": 4, "battle": 3, "shared": 2}


def data_of(text):
    inside = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(inside[1])["runs"]


def visible(text):
    """The page without its replay, data and program."""
    text = re.sub(r'srcdoc="[^"]*"', "", text)
    return re.sub(r"<script.*?</script>|<style>.*?</style>", "", text, flags=re.S)


# --- numbers -------------------------------------------------------------------------------


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", BATTLE_LAST)
def test_the_page_holds_the_numbers(name, stories, pages):
    (found,) = data_of(pages[name])
    assert found == json.loads(json.dumps(stories[name].numbers()))


@pytest.mark.parametrize("name", BATTLE_LAST)
def test_curves_are_those_of_the_metrics(name, trained, stories):
    rows = reporting.read_metrics(trained[name])
    found = stories[name].curves
    assert found["steps"] == [0, 20, 40, 60]
    assert ("win_rate" in found) == (name == "battle")
    assert ("action_std" in found) == (name == "ant")
    for score in found.keys() - {"steps"}:
        for seed, values in zip(stories[name].summary["seeds"], found[score]["seeds"], strict=True):
            own = [row[score] for row in rows if row["seed"] == seed]  # none before training
            np.testing.assert_allclose(np.array(values, float), np.array(own, float), rtol=1e-7)
        ordered = np.sort(np.array(found[score]["seeds"], float), 0)
        median = np.array(found[score]["median"], float)
        np.testing.assert_allclose(median, np.median(ordered, 0), rtol=1e-7)
        if len(ordered) == 3:  # quartiles lie half-way
            lower, upper = (ordered[:-1].sum(0) / 2, ordered[1:].sum(0) / 2)[:2]
            both = (np.array(found[score][side], float) for side in ("lower", "upper"))
            np.testing.assert_allclose(next(both), (ordered[0] + ordered[1]) / 2)
            np.testing.assert_allclose(next(both), upper)
            assert (lower <= upper)[np.isfinite(lower)].all()


@pytest.mark.long
def test_the_switch_is_where_it_was(stories):
    phases = [stories[name].phases for name in NAMES]
    assert phases == [[(20, "finetune")], [(40, "finetune")], []]


@pytest.mark.parametrize("name", BATTLE_LAST)
def test_behaviour_is_what_the_analyses_find(name, trained, stories):
    told = stories[name]
    policy = lorasa_jax.load(trained[name], seed=told.policy)
    team = policy.team
    length, envs = diversity.visits(team)
    distance = (GAUSSIAN if name == "ant" else CATEGORICAL)["wasserstein"]

    @jax.jit
    def analysed(banks):
        acting = team.actor.scheme.weights(banks)
        seen = collect(jax.random.key(told.policy), team, acting, length=length, num_envs=envs)
        return (
            diversity.distance_matrix(distance, team, acting, seen, own_ids=True),
            activations.activation_maps(team, acting, seen, own_ids=True),
        )

    matrix, maps = analysed(policy.banks)
    assert told.observations == length * envs and told.step == 60
    np.testing.assert_allclose(told.distances, matrix, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(told.snd, diversity.snd(np.array(told.distances)), rtol=1e-6)
    assert told.snd > 0, "agents differ by their ids at least"
    assert tuple(told.activations) == LAYERS[name] == tuple(told.layers)
    for layer, values in told.activations.items():
        np.testing.assert_allclose(values, maps[layer], rtol=1e-4, atol=1e-7)
        assert len(values) == AGENTS[name] == len(told.agents)


@pytest.mark.parametrize("name", BATTLE_LAST[1:])
def test_norms_are_those_of_the_deltas(name, trained, stories):
    told = stories[name]
    policy = lorasa_jax.load(trained[name], seed=told.policy)
    deltas = weights.matrices(weights.deltas(policy.team.actor.scheme, policy.banks))
    for column, layer in zip(np.array(told.norms).T, told.layers, strict=True):
        wanted = np.sqrt(np.square(np.asarray(deltas[layer], float)).sum((1, 2)))
        np.testing.assert_allclose(column, wanted, rtol=1e-5)
        assert (wanted > 0).all()


def test_a_run_without_adapters_has_no_norms(stories, pages):
    assert stories["shared"].norms is None
    assert "no adapters" in pages["shared"] and "Frobenius" not in pages["shared"]


@pytest.mark.long
def test_what_takes_a_while_is_told(stories, said):
    for name in NAMES:
        stories[name]
    assert sorted(said) == [
        "ant: comparing 4 agents on 960 joint observations", "ant: playing an episode",
        "battle: comparing 3 agents on 96 joint observations", "battle: playing an episode",
        "shared: comparing 2 agents on 80 joint observations",
    ]  # fmt: skip


@pytest.mark.long
def test_agents_have_the_colours_of_their_replay(stories):
    ant, battle = stories["ant"], stories["battle"]
    (recording,) = re.findall(r'id="recording"[^>]*>(.*?)</script>', ant.replay, re.S)
    legend = [entry["colour"] for entry in json.loads(recording)["legend"]]
    shown = [[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in ant.colours]
    np.testing.assert_allclose(shown, legend, atol=1e-6)
    np.testing.assert_allclose(shown, palette(4), atol=1e-6)
    (recording,) = re.findall(r'id="recording"[^>]*>(.*?)</script>', battle.replay, re.S)
    assert battle.colours == [unit["colour"] for unit in json.loads(recording)["units"][:3]]


# --- pages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BATTLE_LAST)
def test_every_agent_and_layer_is_there(name, stories, pages):
    text = visible(pages[name])
    for agent in stories[name].agents:
        shown = text.count(f">{agent.replace('_', ' ')}</text>")
        assert shown == 2 + len(LAYERS[name]) + (name != "shared"), agent
    for layer in LAYERS[name]:
        assert f"Activations of {layer}<" in text
        assert text.count(f">{layer}</text>") == (name != "shared")


@pytest.mark.parametrize("name", BATTLE_LAST)
def test_the_results_are_in_the_table(name, stories, pages):
    summary, text = stories[name].summary, visible(pages[name])
    cells = dict(re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', text))
    assert cells["Actor parameters"] == f"{summary['parameters']['actor net']:,}"
    assert cells["Speed"] == f"{summary['steps_per_second']:,.0f} steps/s"
    assert ("Win rate" in cells) == (name == "battle")
    assert ("Actor adapters" in cells) == (name != "shared")
    phases = {"ant": "finetune from 20", "battle": "finetune from 40"}
    assert cells.get("Phases") == phases.get(name)
    assert len(cells.get("per seed", "").split(" · ")) == len(summary["seeds"])
    assert html.escape(summary["command"]) in text


@pytest.mark.long
def test_the_switch_is_marked(pages):
    marks = {name: len(re.findall(r'id="c\d+-switch-0"', pages[name])) for name in NAMES}
    assert marks == {"ant": 4, "battle": 4, "shared": 0}  # narrow and wide; spreads and win rates
    assert ">finetune</text>" in pages["ant"] and ">finetune</text>" not in pages["shared"]


@pytest.mark.parametrize("name", BATTLE_LAST)
def test_a_page_is_one_light_file(name, pages):
    # Outside of data in base64, no address of any kind.
    outside = (
        r"https?:|(?<![\w+/])//[a-z]{2,}\.|@import|url\((?!#)|<link[^>]*href=\"(?!data:)| src="
    )
    assert not re.search(outside, re.sub(r"base64,[\w+/=\s]+", "", pages[name]))
    assert len(pages[name]) < 2e6


@pytest.mark.long
def test_ids_are_unique_and_references_lead_somewhere(stories):
    text = visible(page.page([stories[name] for name in NAMES]))
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) > 500 and len(set(ids)) == len(ids)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) <= set(ids)


class Balance(HTMLParser):
    """Complains where a tag is closed that is not the last one open."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.long
def test_tags_are_closed(stories):
    parser = Balance()
    parser.feed(page.page([stories[name] for name in NAMES]))
    assert parser.open == []


def test_content_is_escaped(stories):
    evil = "<b>&\"'__BODY__</script>"
    told = stories["shared"]
    told = story.Story(**{
        **{name: getattr(told, name) for name in told.__dataclass_fields__},
        "name": evil,
        "agents": [evil, evil],
        "summary": {**told.summary, "env": evil, "command": evil},
        "config": {**told.config, "out": evil},
    })  # fmt: skip
    text = page.page([told])
    assert text.count("</script>") == 2 and "<b>&" not in text
    assert data_of(text)[0]["name"] == evil
    parser = Balance()
    parser.feed(text)
    assert parser.open == []


@pytest.mark.long
def test_runs_are_compared(trained, stories, pages, tmp_path, capsys):
    """By the command: one curve a run where the environment is the same, a column each."""
    path = tmp_path / "both.html"
    command.main([str(trained["shared"]), str(trained["battle"]), f"out={path}"])
    told = capsys.readouterr().out.splitlines()
    assert "comparing" in told[0] and told[-1].startswith(str(path))
    text = path.read_text()
    assert [run["name"] for run in data_of(text)] == ["shared", "battle"]
    assert data_of(text)[0] == data_of(pages["shared"])[0]
    assert "2 runs compared" in text
    head = re.findall(r'<th scope="col">(.*?)</th>', text)
    rows = dict(re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', text))
    assert {"specialisation_2 ps", "smax_3m ps_lora"} <= set(rows)
    place = head.index("Win rate")
    wins = {name: re.findall("<td>(.*?)</td>", rows[name])[place] for name in list(rows)[:2]}
    assert wins["specialisation_2 ps"] == "–" and wins["smax_3m ps_lora"].endswith("%")
    assert text.count("<iframe") == 1 and "specialisation_2 has no pictures" in text


def test_the_page_lies_in_the_run_by_default(trained, capsys):
    command.main([str(trained["shared"]), "policy=6"])
    (found,) = data_of((trained["shared"] / "report.html").read_text())
    assert found["policy"] == 6


@pytest.mark.full
def test_two_runs_of_an_environment_share_a_chart(stories):
    other = story.Story(**{**vars(stories["ant"]), "name": "other", "phases": [(40, "finetune")]})
    text = visible(page.page([stories["ant"], other]))
    curves = re.findall(r'<section id="curves">.*?</section>', text, re.S)[0]
    assert curves.count("<svg") == 4  # returns and spreads, each chart narrow and wide
    assert curves.count(">finetune begins</text>") == 4
    assert re.findall(r'<i style="background:(.*?)"></i>(\w+)', curves) == [
        ("#0072b2", "ant"), ("#e69f00", "other"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("folders", "wanted"),
    [
        (("a/b/run",), ["run"]),
        (("a/one", "b/two"), ["one", "two"]),
        (("a/x/run", "a/y/run"), ["x/run", "y/run"]),
    ],
)
def test_names_tell_runs_apart(folders, wanted):
    assert command.names(folders) == wanted


def test_seeds_of_one_configuration_are_one_row_and_one_curve(stories):
    """Three runs of a seed each are told as the run of three seeds is."""
    whole = stories["shared"]
    parts = []
    for i, seed in enumerate(whole.summary["seeds"]):
        summary = {
            **whole.summary, "seeds": [seed],
            "eval_return_per_seed": [whole.summary["eval_return_per_seed"][i]],
        }  # fmt: skip
        score = whole.curves["eval_return"]
        one = {**whole.curves, "eval_return": {**score, "seeds": [score["seeds"][i]]}}
        config = {**whole.config, "seed": seed, "num_seeds": 1, "out": f"runs/{seed}"}
        told = {**vars(whole), "name": f"run {seed}", "summary": summary, "config": config}
        parts.append(story.Story(**{**told, "curves": one}))
    (joined,) = story.grouped(parts)
    assert joined.summary["seeds"] == whole.summary["seeds"]
    assert joined.curves.keys() == whole.curves.keys()
    for name, values in whole.curves["eval_return"].items():
        np.testing.assert_allclose(joined.curves["eval_return"][name], values, rtol=1e-6)
    for name in ("eval_return", "best_eval_return", "best_eval_step"):
        assert joined.summary[name] == pytest.approx(whole.summary[name])
    assert len(story.grouped([whole, whole])) == 2, "a seed that comes twice is no other seed"
    text = visible(page.page(parts))
    assert "n = 3 seeds" in text and text.count("<article>") == 1


@pytest.mark.parametrize("seeds, told", [(2, False), (3, True)])
def test_intervals_are_told_of_three_seeds_or_more(seeds, told, stories):
    whole = stories["shared"]
    values = np.linspace(0.0, 1.0, 4 * seeds).reshape(seeds, 4)
    rows = [
        {"env_steps": step, "seed": seed, "eval_return": values[seed, i]}
        for seed in range(seeds)
        for i, step in enumerate((0, 20, 40, 60))
    ]
    curves = learning(rows, tuple(range(seeds)))
    assert (curves["eval_return"]["low"] is not None) == told
    assert curves["eval_return"]["reference"] == pytest.approx(values[:, 0].mean())
    summary = {
        **whole.summary, "seeds": list(range(seeds)),
        "eval_return_per_seed": values[:, -1].tolist(), "eval_return": float(values[:, -1].mean()),
    }  # fmt: skip
    one = story.Story(**{**vars(whole), "summary": summary, "curves": curves})
    found = table.measures(one)
    assert (" to " in found["Final return"]) == told and f"n = {seeds} seeds" in found["of"]
    drawn = page.learning([one], lambda text: text)
    assert ("the band its 95 % bootstrap interval" in drawn) == told
    assert ("points are single evaluations" in drawn) != told
    assert 'id="untrained"' in drawn


# --- panels --------------------------------------------------------------------------------


def test_a_map_is_as_strong_as_its_values():
    values = np.array([[0.0, 1.0, 4.0], [2.0, 0.0, 3.0]])
    text = panels.cells(values, ["one", "two"], ["a", "b", "c"], row_colours=["#111111"] * 2,
                        scale="unit", label="a < b")  # fmt: skip
    encoded, transform = re.search(
        r'base64,([^"]+)".*?transform="matrix\((.*?)\)"', text, re.S
    ).groups()
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    np.testing.assert_allclose(picture[..., 3] / 255, values / 4, atol=0.003)
    a, b, c, d, *_ = map(float, transform.split())
    assert a > 0 and d > 0 and b == c == 0, "neither turned nor mirrored"
    assert re.findall(r">(\d\.\d\d)</text>", text) == [f"{x:.2f}" for x in values.ravel()]
    assert 'aria-label="a &lt; b"' in text and ">4  unit</text>" in text


def test_a_map_of_zeros_is_drawn():
    text = panels.cells(np.zeros((2, 2)), ["a", "b"], [], row_colours=["#111111"] * 2,
                        scale="unit", label="", cell_height=10)  # fmt: skip
    assert ">0  unit</text>" in text


def test_of_many_names_some_are_written():
    names = [f"marine {i}" for i in range(27)]
    text = panels.cells(np.eye(27), names, names, row_colours=["#111111"] * 27, scale="distance",
                        column_colours=["#111111"] * 27, label="")  # fmt: skip
    assert text.count(">marine 0</text>") == 2 and text.count(">marine 1</text>") == 0


# --- what is refused -----------------------------------------------------------------------


def refused(capfd, *arguments):
    """The one sentence that the command says on stderr."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as left:
        command.main([str(argument) for argument in arguments])
    assert left.value.code == 2
    said = capfd.readouterr().err
    assert len(said.strip().splitlines()) == 1, said
    return said.removeprefix("lorasa_jax.report: ")


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the run without pictures, to be damaged."""
    return shutil.copytree(trained["shared"], tmp_path / "copy")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give one RUN or more"),
        (["out=x.html"], "give one RUN or more"),
        (["run", "wnadb=true"], "did you mean wandb?"),
        (["run", "wandb=maybe"], "wandb=maybe must be true or false"),
        (["run", "policy=-1"], "policy=-1 must be at least 0"),
        (["run", "./run"], "given twice"),
        (["nowhere"], "out=nowhere holds no run"),
    ],
)
def test_bad_words_are_refused(arguments, sentence, capfd):
    assert sentence in refused(capfd, *arguments)


def test_bad_places_are_refused(trained, capfd, tmp_path):
    run = trained["shared"]
    assert "a folder that exists" in refused(capfd, run, f"out={tmp_path / 'no' / 'x.html'}")
    assert "cannot be written" in refused(capfd, run, f"out={tmp_path}")
    assert "choose from 4, 5, 6" in refused(capfd, run, "policy=1")


def test_an_unfinished_run_is_refused(copy, capfd):
    (copy / "summary.json").unlink()
    found = refused(capfd, copy)
    assert f"{copy} is not finished (step 60 of 60)" in found and "continues it" in found
    for folder in (copy / "checkpoints").iterdir():
        folder.rename(folder.with_name(f"{folder.name}.orbax-checkpoint-tmp"))
    assert "(step 0 of 60)" in refused(capfd, copy)


def test_another_versions_run_is_refused(copy, capfd):
    path = copy / "config.yaml"
    whole = path.read_text()
    path.write_text(whole.replace("  epochs: 1\n", ""))
    assert "written by another version (it lacks 'epochs')" in refused(capfd, copy)
    path.write_text(whole + "warp: 9\n")
    assert f"{path} cannot be used: unknown key warp" in refused(capfd, copy)
    path.write_bytes(b"\xff\xfe\x00")
    assert "is damaged and cannot be read" in refused(capfd, copy)


@pytest.mark.parametrize("text", ["", '{"env": "x"', "[]", "3", "{}", "\udcff"])
def test_a_damaged_summary_is_refused(text, copy, capfd):
    path = copy / "summary.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert f"{path} " in refused(capfd, copy)


@pytest.mark.full
def test_a_summary_is_written_anew_by_the_same_command(train, copy):
    path = copy / "summary.json"
    old = json.loads(path.read_text())
    path.unlink()
    train("shared", copy)
    new = runs.summary(copy)
    assert new["eval_return_per_seed"] == old["eval_return_per_seed"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [],
        lambda lines: lines[:-1],
        lambda lines: lines[1:],
        lambda lines: [*lines[:-1], lines[-1][:40]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines[:-1], '"word"'],
        lambda lines: [line.replace('"eval_return"', '"return"') for line in lines],
        lambda lines: [line.replace('"train"', '"phase 3"') for line in lines],
        lambda lines: ["\udcff", *lines],
    ],
)
def test_damaged_metrics_are_refused(damage, copy, capfd):
    path = copy / "metrics.jsonl"
    text = "\n".join(damage(path.read_text().splitlines()))
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert f"{path} " in refused(capfd, copy)


@pytest.mark.parametrize("share", [0.5, 0.0, None])
def test_a_damaged_checkpoint_is_refused(share, copy, capfd):
    """Truncated, empty or missing data; nothing of the reader's own is on stderr."""
    for path in (copy / "checkpoints" / "3" / "state").rglob("d/*"):
        whole = path.read_bytes()
        path.unlink() if share is None else path.write_bytes(whole[: int(share * len(whole))])
    assert "the checkpoint of update 3" in refused(capfd, copy)


@pytest.mark.full
def test_adapters_are_required(trained):
    assert runs.require_adapters(lorasa_jax.load(trained["ant"])) is None
    before = lorasa_jax.load(trained["ant"], 20)
    with pytest.raises(runs.ConfigError, match=r"no adapters yet at step 20; .*switch"):
        runs.require_adapters(before)
    with pytest.raises(runs.ConfigError, match=r"has no LoRA phase \(sharing=ps\)"):
        runs.require_adapters(lorasa_jax.load_all(trained["shared"])[0])


# --- in a browser --------------------------------------------------------------------------

# The page stands in a frame as wide as a phone.
PHONE = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe id="phone" style="width:390px;height:800px;border:0" srcdoc="%s"></iframe>
<script>
const phone = document.getElementById("phone");
const result = {};
function until(condition, then) {
  const timer = setInterval(() => {
    let found;
    try { found = condition(); } catch { return; }
    if (!found) return;
    clearInterval(timer);
    then(found);
  }, 20);
}
function done() { console.log("SELFTEST", JSON.stringify(result), "SELFTEST"); }
phone.onload = () => {
  const view = phone.contentWindow, page = view.document, root = page.documentElement;
  Object.assign(result, { width: view.innerWidth, scroll: root.scrollWidth });
  const charts = () => [...page.querySelectorAll(".chart")].filter(x => x.checkVisibility());
  result.charts = charts().length;
  for (const folded of page.querySelectorAll("details")) folded.open = true;
  const shown = charts();
  result.unfolded = shown.length;
  result.outside = shown.filter(x => {
    const { left, right } = x.getBoundingClientRect();
    return left < 0 || right > view.innerWidth;
  }).length;
  const sizes = shown.flatMap(chart => {
    const scale = chart.getBoundingClientRect().width / chart.viewBox.baseVal.width;
    return [...chart.querySelectorAll("text")].map(
      x => scale * parseFloat(view.getComputedStyle(x).fontSize));
  });
  for (const x of page.querySelectorAll("p, td, th, li, figcaption, h4, pre, summary")) {
    sizes.push(parseFloat(view.getComputedStyle(x).fontSize));
  }
  result.smallest = Math.min(...sizes);
  result.runs = JSON.parse(page.getElementById("data").textContent).runs.length;
  result.opened = root.scrollWidth;
  const frame = page.querySelector("iframe");
  if (!frame) return done();
  frame.scrollIntoView();
  %s
};
</script>"""
ROBOT = """
  until(() => frame.contentWindow.replay, replay => {
    result.frames = replay.frames;
    until(() => replay.frame >= 3 && replay.drawn > 2, () => {
      result.playing = replay.playing;
      result.high = frame.clientHeight;
      done();
    });
  });
"""
BATTLE = """
  until(() => frame.contentDocument.getElementById("play"), play => {
    const slider = frame.contentDocument.getElementById("slider");
    result.frames = Number(slider.max) + 1;
    result.before = Number(slider.value);
    play.click();
    until(() => Number(slider.value) >= 2, () => {
      result.playing = true;
      result.high = frame.clientHeight;
      result.whole = frame.contentDocument.body.offsetHeight;
      done();
    });
  });
"""


@pytest.mark.parametrize(
    ("name", "script"),
    [
        pytest.param("ant", ROBOT, marks=pytest.mark.full),
        pytest.param("battle", BATTLE, marks=pytest.mark.long),
        ("shared", ""),
    ],
)
def test_a_page_fits_a_phone_and_plays(name, script, stories, pages, opened, tmp_path):
    path = tmp_path / "phone.html"
    path.write_text(PHONE % (html.escape(pages[name]), script))
    found = opened(path, tmp_path)  # which refuses whatever else is on the console
    assert found["width"] == 390 and found["scroll"] <= 390 and found["opened"] <= 390
    curves = 1 + (name != "shared")  # the spread of actions, or the win rate
    assert found["charts"] == curves + 1 + (name != "shared"), "activations are folded away"
    assert found["unfolded"] == found["charts"] + len(LAYERS[name])
    assert found["outside"] == 0 and found["smallest"] >= 14 and found["runs"] == 1
    if name != "shared":
        assert found["playing"] and found["frames"] > 5
        assert found["high"] > 300
    if name == "battle":
        assert found["before"] == 0 and abs(found["whole"] - found["high"]) <= 2
