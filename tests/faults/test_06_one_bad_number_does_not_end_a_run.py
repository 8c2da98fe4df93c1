"""Evaluations without a finite return: counted, said, skipped by rules, and written."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import TINY, settings

from lorasa_jax import evaluate
from lorasa_jax.report import story, table
from lorasa_jax.report.learning import learning
from lorasa_jax.training import execution, program, stored
from lorasa_jax.training.program import Phase

pytestmark = pytest.mark.usefixtures("compiled_once")

BAD = {"none": (), "one": (0,), "all": (0, 1)}
VALUES = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@pytest.fixture
def spoiled(monkeypatch):
    """spoiled(value, episodes, updates): evaluations at these updates return that value there."""
    compile_phase = program.compile_phase

    def spoil(value, episodes, updates):
        def compiled(*arguments):
            phase = compile_phase(*arguments)

            def play(progress, update):
                results = phase.play(progress, update)
                if int(update) not in updates:
                    return results
                columns = jnp.array(episodes, int)
                return results._replace(returns=results.returns.at[:, columns].set(value))

            return Phase(phase.name, phase.end, phase.advance, play)

        monkeypatch.setattr(program, "compile_phase", compiled)

    return spoil


@pytest.mark.full
@pytest.mark.sample(3)
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("episodes", ["one", "all"])
@pytest.mark.parametrize("updates", [(0,), (3,), (6,), tuple(range(7))])
def test_the_run_ends_with_its_summary_and_is_read(
    value, episodes, updates, spoiled, tmp_path, capsys
):
    spoiled(VALUES[value], BAD[episodes], updates)
    out = tmp_path / "run"
    summary = execution.execute(settings(out))
    said = " ".join(capsys.readouterr().out.split())
    count = len(BAD[episodes])
    assert f"{count} of 2 evaluated episodes of seed 0 had a return that is not finite" in said
    assert f"{count} returns not finite" in said
    rows = {row["env_steps"]: row for row in stored.metrics(out).rows}
    for step, row in rows.items():
        bad = step // 8 in updates
        assert row.get("eval_not_finite", 0) == (count if bad else 0)
        assert (row["eval_return"] is None) == (bad and episodes == "all")
    assert stored.summary(out) == summary == execution.execute(settings(out))
    assert (summary["eval_return"] is None) == (episodes == "all" and 6 in updates)
    assert (summary["best_eval_return"] is None) == (episodes == "all" and len(updates) == 7)
    json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
    story.check(out, None)
    learned = learning(list(rows.values()), (0,))
    assert len(learned["eval_return"]["median"]) == 7
    assert table.amount(summary["eval_return"])


@pytest.mark.long
@pytest.mark.full
def test_a_rule_skips_what_is_not_finite(spoiled, tmp_path, capsys):
    """A plateau over 2 evaluations: those of updates 1 and 2 are no part of it."""
    spoiled(math.nan, (0, 1), (1, 2))
    two = ["sharing=ps_lora", "switch_when=plateau", "switch_patience=2", "switch_margin=1e9"]
    execution.execute(settings(tmp_path / "run", *two))
    assert "step 32: finetune begins" in capsys.readouterr().out


@pytest.mark.full
def test_it_is_continued_after_such_an_evaluation(spoiled, tmp_path):
    spoiled(math.nan, (0, 1), tuple(range(7)))
    seen = iter(range(9))
    assert execution.execute(settings(tmp_path / "run"), lambda: next(seen) == 2) is None
    assert execution.execute(settings(tmp_path / "run"))["eval_return"] is None and TINY


@pytest.mark.parametrize("value", VALUES.values())
def test_results_of_finished_policies_leave_it_out(value):
    returns = np.array([1.0, value, 3.0])
    found = evaluate.statistics_of(returns)
    assert found["mean"] == 2.0 and found["not_finite"] == 1
    nothing = evaluate.statistics_of(returns[1:2])
    assert nothing["mean"] is None and nothing["not_finite"] == 1
    row = {"policy": 0, "length": 1.0, **nothing}
    evaluate.show({"env": "x", "step": 1, "episodes": 1, "actions": "greedy", "policies": [row]})
