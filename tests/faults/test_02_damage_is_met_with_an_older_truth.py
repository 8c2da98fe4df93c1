"""Every file of a run truncated, emptied, replaced, deleted, made a folder, flipped in a bit.

Training that is continued ends as if nothing had happened, having said what it found, or refuses
in a sentence; nothing is read as something else than was written.
"""

import hashlib
import json
import shutil

import numpy as np
import pytest
from tiny_runs import LONG, leaves, outcome, rows, settings, train

from lorasa_jax.errors import ConfigError
from lorasa_jax.report import story
from lorasa_jax.training import checkpoint, execution, reporting, stored

pytestmark = pytest.mark.usefixtures("compiled_once")

OTHER = b'{"a": [1, 2, 3]}\n'
FLIPS = 200 if LONG else 1  # bits of every file
FILES = [
    "config.yaml", "metrics.jsonl", "summary.json", ".lock", "checkpoints/N/sha256.json",
    "checkpoints/N/meta/metadata", "checkpoints/N/state/_METADATA", "checkpoints/N/state/d/*",
    "checkpoints/N/state/manifest.ocdbt", "checkpoints/N/_CHECKPOINT_METADATA",
    "checkpoints/N/state/ocdbt.process_0/d/*", "checkpoints/N/state/ocdbt.process_0/manifest.ocdbt",
    "checkpoints/N/commit_success.txt",
]  # fmt: skip


def flip(path, rng):
    content = bytearray(path.read_bytes())
    if content:
        bit = int(rng.integers(8 * len(content)))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)


def folder(path):
    path.unlink()
    path.mkdir()


DAMAGE = {
    "half": lambda path, rng: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path, rng: path.write_bytes(b""),
    "other": lambda path, rng: path.write_bytes(OTHER),
    "bytes": lambda path, rng: path.write_bytes(b"\xff\xfe\x00" * 9),
    "gone": lambda path, rng: path.unlink(),
    "folder": lambda path, rng: folder(path),
    **{f"flip {i}": lambda path, rng: flip(path, rng) for i in range(FLIPS)},
}

HOW = list(DAMAGE) if LONG else ["half", "gone", "folder", "flip 0"]


def damaged(out, pattern, how):
    """Damages a file of the newest checkpoint, or of the run; False where there is none."""
    newest = max(checkpoint.updates(out / "checkpoints"))
    paths = sorted(out.glob(pattern.replace("/N/", f"/{newest}/")))
    if not paths:
        return False
    rng = np.random.default_rng([*pattern.encode(), *how.encode()])
    DAMAGE[how](paths[int(rng.integers(len(paths)))], rng)
    return True


@pytest.mark.parametrize("pattern", [name for name in FILES if name != "summary.json"])
@pytest.mark.parametrize("how", HOW)
def test_an_unfinished_run_goes_on_to_the_same_end(pattern, how, unfinished, end, copy, capsys):
    out = copy(unfinished)
    assert damaged(out, pattern, how)
    refused = outcome(out)
    said = capsys.readouterr().out
    if refused is not None:
        assert pattern in ("config.yaml", ".lock") or how == "folder", refused
        return
    assert leaves(out) == end[1]
    if pattern == "metrics.jsonl":
        assert rows(out) == end[0] or "warning: " in said
    else:
        assert rows(out) == end[0]
    if pattern.startswith("checkpoints"):
        assert "is damaged" in said and "goes on from that of update 2" in said


@pytest.mark.parametrize("pattern", FILES)
@pytest.mark.parametrize("how", HOW)
def test_readers_see_what_was_written_or_refuse(pattern, how, finished, end, copy):
    out = copy(finished)
    assert damaged(out, pattern, how)
    try:
        read = leaves(out)
    except ConfigError as error:
        assert "\n" not in str(error)
        read = None
    assert read in (end[1], None)
    assert read is None or not pattern.startswith("checkpoints")
    try:
        story.check(out, None)
        assert stored.summary(out) == stored.summary(finished)
        assert stored.metrics(out) == stored.metrics(finished)
    except ConfigError as error:
        assert "\n" not in str(error)


def test_a_finished_run_says_what_it_has_lost(finished, copy, capsys):
    out = copy(finished)
    text = (out / "metrics.jsonl").read_text()
    (out / "metrics.jsonl").write_text(text.replace('"eval_episodes": 2', '"eval_episodes": 3', 1))
    before = snapshot(out)
    train(out)
    assert "has lost or changed lines" in capsys.readouterr().out
    assert snapshot(out) == before
    (out / "summary.json").write_text("{")
    (out / "metrics.jsonl").unlink()
    train(out)
    said = capsys.readouterr().out
    assert "summary.json is damaged and is written anew" in said
    assert "has lost lines of 7 of 7 evaluations, at steps 0, 8, 16" in said
    new, old = stored.summary(out), stored.summary(finished)
    for key in ("eval_return_per_seed", "best_eval_return", "best_eval_step", "parameters"):
        assert new[key] == old[key]


def snapshot(out):
    return {path: path.stat().st_mtime_ns for path in out.rglob("*")}


def test_metrics_that_change_while_training_goes_on_are_told(tmp_path, capsys):
    """The digests of later checkpoints are of what was written, not of what the file holds."""
    out, evaluations = tmp_path / "run", iter(range(10))

    def evaluated():
        evaluation = next(evaluations)
        if evaluation == 1:
            text = (out / "metrics.jsonl").read_text()
            changed = text.replace('"eval_episodes": 2', '"eval_episodes": 3', 1)
            (out / "metrics.jsonl").write_text(changed)
        return evaluation == 3

    assert execution.execute(settings(out), evaluated) is None
    train(out)
    assert "holds other numbers than this run wrote" in capsys.readouterr().out


def test_every_checkpoint_holds_the_digest_of_the_rows_so_far(unfinished, copy):
    out = copy(unfinished)
    for _ in range(2):  # as it was left, and after another evaluation of a process of its own
        written = hashlib.sha256((out / "metrics.jsonl").read_bytes()).hexdigest()
        assert checkpoint.newest_meta(out / "checkpoints")["metrics_sha256"] == written
        train(out, stop_after=2)


@pytest.mark.full
def test_metrics_are_read_as_often_in_a_long_run_as_in_a_short_one(tmp_path, monkeypatch):
    counts = {}
    read = stored.read_bounded

    for every in (1, 6):  # evaluations and checkpoints: six of each, or one

        def counting(path, *most, every=every):
            counts[every] = counts.get(every, 0) + (path.name == stored.METRICS)
            return read(path, *most)

        monkeypatch.setattr(stored, "read_bounded", counting)
        words = f"eval_every={every}", f"checkpoint_every={every}"
        train(tmp_path / str(every), *words)
    assert counts[1] == counts[6] > 0


def test_the_damaged_checkpoint_is_told_in_the_metrics_and_kept(unfinished, end, copy, capsys):
    out = copy(unfinished)
    (out / "checkpoints" / "3" / "state" / "manifest.ocdbt").write_bytes(b"")
    train(out)
    said = " ".join(capsys.readouterr().out.split())
    assert "checkpoint of update 3 is damaged (state/manifest.ocdbt holds other bytes" in said
    assert "training goes on from that of update 2" in said
    assert (rows(out), leaves(out)) == end
    lost = {row["env_steps"]: row.get("lost_checkpoints") for row in reporting.read_metrics(out)}
    assert lost == {0: None, 8: None, 16: None, 24: 1, 32: None, 40: None, 48: None}
    assert (out / "checkpoints" / "damaged-3").is_dir()


@pytest.mark.full
def test_without_a_whole_checkpoint_training_begins_again(unfinished, end, copy, capsys):
    out = copy(unfinished)
    for path in out.glob("checkpoints/*/meta/metadata"):
        path.unlink()
    train(out)
    assert "none is whole, and training begins again" in " ".join(capsys.readouterr().out.split())
    assert (rows(out), leaves(out)) == end


def test_a_checkpoint_under_another_number_is_refused(unfinished, end, copy, capsys):
    out = copy(unfinished)
    (out / "checkpoints" / "3").rename(out / "checkpoints" / "5")
    with pytest.raises(ConfigError, match=r"update 5 .* was written as that of update 3.*step=16"):
        leaves(out)
    train(out)
    assert "it was written as that of update 3" in " ".join(capsys.readouterr().out.split())
    assert (rows(out), leaves(out)) == end


@pytest.mark.full
def test_checkpoints_without_digests_are_those_of_earlier_versions(unfinished, end, copy):
    out = copy(unfinished)
    for path in (out / "checkpoints").iterdir():
        (path / "sha256.json").unlink()
        beside = json.loads((path / "meta" / "metadata").read_text())
        kept = {key: beside[key] for key in ("phase", "seconds", "since_line", "returns")}
        (path / "meta" / "metadata").write_text(json.dumps(kept))
    other = copy(out)
    train(out)
    assert (rows(out), leaves(out)) == end
    (other / "checkpoints" / "3").rename(other / "checkpoints" / "9")
    with pytest.raises(ConfigError, match="it is that of update 3"):
        leaves(other)


# --- groups of agents ----------------------------------------------------------------------

SEPS = ["env=smax_3m", "env.max_steps=4", "sharing=seps", "total_steps=24"]
GROUPS = {
    "short": [0, 0], "long": [0, 0, 1, 1], "negative": [0, -1, 0], "gap": [0, 2, 0],
    "words": ["a", "b", "c"], "truths": [True, False, True], "floats": [0.0, 1.0, 1.0],
    "other": [0, 1, 2], "nothing": None, "nested": [[0], [1], [1]], "number": 3, "text": "011",
}  # fmt: skip


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """A run of groups that were found, stopped after its first update."""
    out = tmp_path_factory.mktemp("grouped") / "run"
    assert train(out, *SEPS, stop_after=2) is None
    return out


@pytest.mark.long
@pytest.mark.full
@pytest.mark.upstream
@pytest.mark.sample(3)
@pytest.mark.parametrize("groups", GROUPS)
def test_groups_are_those_that_were_trained_with(groups, grouped, copy, capsys):
    out = copy(grouped)
    truth = json.loads((grouped / "clusters.json").read_text())["clusters"]
    (out / "clusters.json").write_text(json.dumps({"clusters": GROUPS[groups]}))
    before = leaves(grouped)
    assert leaves(out) == before
    assert outcome(out, *SEPS) is None
    assert GROUPS[groups] == truth or "warning: " in capsys.readouterr().out
    assert json.loads((out / "clusters.json").read_text()) == {"clusters": truth}


@pytest.mark.parametrize("groups", GROUPS)
def test_groups_that_are_none_are_refused_where_no_checkpoint_knows_better(groups, tmp_path):
    (tmp_path / "clusters.json").write_text(json.dumps({"clusters": GROUPS[groups]}))
    given = [0, 1, 1] if groups == "other" else None
    with pytest.raises(ConfigError, match=r"clusters\.json"):
        stored.clusters(tmp_path, 3, given)
    shutil.rmtree(tmp_path)
    assert stored.clusters(tmp_path, 3, given) is None
