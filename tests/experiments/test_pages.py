"""Every kept table and figure follows from the kept numbers, and so do the documentation's."""

import re

import numpy as np
import pytest
from PIL import Image

from experiments import comparison, evidence, pages, pictures, redraw
from experiments.evidence import Kept
from experiments.keep import RESULTS

FOLDERS = redraw.folders()


@pytest.fixture(scope="module")
def runs():
    return evidence.kept()


@pytest.mark.sample(20)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_kept_figure_is_made_anew_of_its_numbers(folder, tmp_path):
    """Tables to the letter; of pictures the size, and every word and number that is written."""
    made = {path.name: path for path in redraw.redraw(folder, tmp_path)}
    assert {"csv", "png", "svg"} & {name[-3:] for name in made}
    for name, path in made.items():
        kept = folder / name
        if path.suffix in (".csv", ".md"):
            assert path.read_text() == kept.read_text(), name
        elif path.suffix == ".svg":
            assert _words(path) == _words(kept), name
        else:
            with Image.open(path) as one, Image.open(kept) as other:
                assert one.size == other.size and one.info["Description"]
                assert one.size[0] >= 900, "as wide as a page shows it"


def _words(path):
    return sorted(re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text()))


def test_the_numbers_of_figure_2_are_those_of_the_kept_runs(runs):
    """Every evaluation of every cell whose run was kept too."""
    found = 0
    for folder in FOLDERS:
        path = folder / "figure_2.csv"
        command = path.read_text().partition("\n")[0] if path.exists() else ""
        preset = (re.findall(r"\bpreset=(\w+)", command) or ["paper"])[0]
        for row in pictures.read_rows(path) if path.exists() else ():
            for run in runs:
                words = run.name.split("_mappo_")[1].rpartition("_seeds")[0]
                if not (run.env, run.sharing) == (row["env"], row["sharing"]) or not words:
                    continue
                if run.preset != preset or int(row["env_steps"]) not in run.steps:
                    continue
                if run.config.get("init_from") and int(row["env_steps"]) <= run.steps[0]:
                    continue  # what came before a fine-tuned run's start is another's
                seed = run.seeds.index(int(row["seed"]))
                step = run.steps.tolist().index(int(row["env_steps"]))
                assert float(row["return"]) == run.returns[seed, step]
                found += 1
    assert found > 300


def test_the_documentations_tables_are_fresh():
    for path, text in pages.pages().items():
        assert path.read_text(encoding="utf-8") == text, "run `python -m experiments.pages`"


def test_every_kept_run_is_in_the_benchmark(runs):
    table = pages.benchmark(runs)
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(runs) == len(list(RESULTS.glob("**/metrics.jsonl")))
    for run in runs:
        (number,) = re.findall(rf"^(\d+)\. `{re.escape(run.command)}`$", table, re.M)
        cells = [cell.strip() for cell in rows[int(number) - 1].strip("|").split(" | ")]
        assert cells[0] == run.env and cells[-1] == number
        assert cells[3] == str(len(run.seeds))
        assert (" to " in cells[5]) == (len(run.seeds) >= 3), "intervals from three seeds on"


def test_every_claim_is_judged_or_said_to_have_no_runs(runs):
    table = pages.claims(runs)
    assert len(pages.CLAIMS) == 9
    for claim, *_ in pages.CLAIMS:
        rows = [line for line in table.splitlines() if line.startswith(f"| {claim} |")]
        assert rows
        for row in rows:
            assert re.search(r"\| (supported|refuted|undecided(: [^|]*)?) \|$", row), row


def made(sharing, ends, *, seeds=(0, 1, 2), name="", **keys):
    """A kept run that ended with these returns."""
    config = {
        "env": {"name": "ant_4x2"}, "algo": {"name": "mappo"}, "total_steps": 100,
        "sharing": {"name": sharing, "targets": ["a"] * 7, **keys}, "preset": "tuned",
        "switch_at": keys.get("switch_at"),
    }  # fmt: skip
    returns = np.repeat(np.array(ends, float)[:, None], 2, 1)
    summary = {"command": f"train {sharing}", "parameters": {"actor net": 100, "critic net": 9}}
    return Kept(name or sharing, config, summary, seeds, np.array([0, 100]), returns, None)


@pytest.mark.parametrize(
    "ours, verdict",
    [
        ([12.0, 13.0, 14.0], "supported"), ([8.0, 7.0, 9.0], "refuted"),
        ([8.0, 12.0, 10.5], "undecided"), ([12.0, 13.0], "undecided: 2 seeds, 3 are needed"),
    ],
)  # fmt: skip
def test_a_verdict_follows_from_the_interval_over_seeds(ours, verdict):
    seeds = tuple(range(len(ours)))
    runs = [made("ps_lora", ours, seeds=seeds), made("ps", [10.0] * len(ours), seeds=seeds)]
    (found,) = pages.compared(pages.of("ps_lora"), pages.of("ps"))(runs)
    np.testing.assert_array_equal(found.differences, np.array(ours) - 10)
    assert found.verdict == verdict


def test_runs_that_differ_in_more_than_one_key_are_not_compared():
    ours, theirs = made("ps_lora", [1.0] * 3), made("ps", [1.0] * 3)
    theirs.config["total_steps"] = 200
    assert list(pages.pairs([ours, theirs], pages.of("ps_lora"), pages.of("ps"))) == []
    other = made("ps", [1.0] * 3, seeds=(3, 4, 5))
    assert list(pages.pairs([ours, other], pages.of("ps_lora"), pages.of("ps"))) == []
    name = evidence.SUPERSEDED[0]
    superseded = made("ps", [1.0] * 3, name=name)
    assert list(pages.pairs([ours, superseded], pages.of("ps_lora"), pages.of("ps"))) == []


def test_matching_allows_a_twentieth():
    match = pages.compared(pages.of("ps_lora"), pages.of("nps"), pages.CLOSE)
    for value, verdict in ((97.0, "supported"), (90.0, "refuted")):
        (found,) = match([made("ps_lora", [value] * 3), made("nps", [100.0] * 3)])
        assert found.verdict == verdict


def test_smoothing_keeps_means_of_straight_lines_and_few_points():
    line = np.arange(60.0)[None]
    np.testing.assert_allclose(comparison.smoothed(line)[0, 3:-3], line[0, 3:-3])
    few = np.array([[1.0, 5.0, 2.0]])
    np.testing.assert_array_equal(comparison.smoothed(few), few)


def test_headlines_of_two_seeds_have_no_interval():
    assert comparison.told(np.array([1000.0, 1200.0])) == "1,100"
    assert re.fullmatch(r"1,100 \(.* to .*\)", comparison.told(np.array([1000.0, 1100.0, 1200.0])))
