"""Lists of phases: backbone and adapters in turns, and adapters merged."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lorasa_jax
from lorasa_jax import config as configuration
from lorasa_jax import run, sharing
from lorasa_jax.errors import ConfigError
from lorasa_jax.sharing import sequence
from lorasa_jax.training import phases, plan, reporting
from lorasa_jax.training.teams import build_teams

TINY = [
    "env=specialisation_2", "algo.num_envs=4", "algo.rollout_length=10", "algo.epochs=1",
    "network.hidden=8", "network.kind=ff", "network.depth=1", "sharing.rank=2", "eval_every=1",
    "eval_episodes=2",
]  # fmt: skip
TURNS = "[ps:40,ps_lora:40,ps:40,ps_lora:40,merge,ps_lora]"
NAMES = ("pretrain", "finetune", "pretrain 2", "finetune 2", "finetune 3")


def load(*words):
    return configuration.load([*TINY, "total_steps=200", *words])


def go(out, *words):
    return run.execute(load(f"out={out}", *words))


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def moved(one, other):
    same = jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), one, other)
    return not all(jax.tree.leaves(same))


def states(config):
    """Before and after each switch of a run that is never trained: [(before, after)], and teams."""
    teams = build_teams(config)
    progress = jax.jit(lambda: phases.begin(config, teams[0]))()
    pairs = []
    for index in range(1, len(teams)):
        after = jax.jit(lambda p, i=index: phases.switch(config, teams, i, p))(progress)
        pairs.append((progress.state.actor, after.state.actor))
        progress = after
    return teams, pairs


def test_a_list_of_two_means_what_the_switch_does():
    one, other = load("phases=[ps:80,ps_lora]"), load("switch_at=80")
    for name in ("phase_names", "phase_ends", "switches"):
        assert getattr(one, name) == getattr(other, name)
    assert [one.algo_of(i) for i in (0, 1)] == [other.algo_of(i) for i in (0, 1)]
    row = sharing.REGISTRY.row("ps_lora")
    pair = row.make(sharing.Given(2, one.lora_spec())).actor_phases
    assert [a is b for a, b in zip(sequence.schemes(one.sequence, *pair), pair, strict=True)] == [
        True, True,
    ]  # fmt: skip


@pytest.mark.long
@pytest.mark.full
def test_a_list_of_two_is_the_switch_bit_for_bit(tmp_path):
    go(tmp_path / "list", "phases=[ps:80,ps_lora]")
    go(tmp_path / "switch", "switch_at=80")
    rows = [reporting.read_metrics(tmp_path / name) for name in ("list", "switch")]
    for row in (*rows[0], *rows[1]):
        row.pop("steps_per_second")
    assert rows[0] == rows[1]
    policies = [lorasa_jax.load(tmp_path / name) for name in ("list", "switch")]
    equal(*(policy.state().actor for policy in policies))
    equal(*(policy.state().critic for policy in policies))


@pytest.fixture(scope="module")
def turns(tmp_path_factory):
    out = tmp_path_factory.mktemp("phases") / "run"
    return out, go(out, f"phases={TURNS}")


@pytest.mark.long
@pytest.mark.full
def test_each_phase_trains_what_it_names_and_nothing_else(turns):
    out, summary = turns
    banks = [lorasa_jax.load(out, step).banks for step in (40, 80, 120, 160, 200)]
    for number, (before, after) in enumerate(itertools.pairwise(banks[:4])):
        trained, frozen = ("net", "adapters") if number == 1 else ("adapters", "net")
        assert moved(before.get(trained, 0.0), after[trained])
        if frozen in before:
            equal(before[frozen], after[frozen])
    assert banks[4]["net"]["linear_1"]["kernel"].shape[0] == 2  # an own network each
    assert summary["phases"] == dict(zip(NAMES[1:], (40, 80, 120, 160), strict=True))
    rows = reporting.read_metrics(out)
    assert tuple(dict.fromkeys(row["phase"] for row in rows)) == NAMES


@pytest.mark.long
@pytest.mark.full
def test_every_phase_resumes_bit_for_bit(turns, tmp_path):
    for _ in range(6):  # stopped after every evaluation
        lorasa_jax.train(
            out=tmp_path / "cut", callbacks=[lambda run: True], total_steps=200,
            phases=TURNS.strip("[]").split(","),
            **dict(word.split("=") for word in TINY),
        )  # fmt: skip
    done = go(tmp_path / "cut", f"phases={TURNS}")
    assert done["eval_return"] == turns[1]["eval_return"]
    equal(*(lorasa_jax.load(out).banks for out in (tmp_path / "cut", turns[0])))


@pytest.mark.full
def test_a_run_in_turns_is_read_back(turns):
    policy = lorasa_jax.load(turns[0])
    assert policy.phase == "finetune 3"
    before = lorasa_jax.load(turns[0], 160)
    assert set(before.state().actor.opt_state) == {"adapters"}
    summary = json.loads((turns[0] / "summary.json").read_text())
    assert summary["switched_at"] == 40


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("name", "kind", "networks"),
    [("ps_lora", "lora", 2), ("shared_lora", "lora", 1), ("ps_lora", "lora_xs", 2),
     ("ps_lora", "dora", 2)],
)  # fmt: skip
def test_nobody_acts_otherwise_after_a_merge(name, kind, networks):
    words = [f"sharing={name}", f"sharing.kind={kind}"]
    config = load(*words, f"phases=[ps:40,{name}:40,merge,{name}]")
    teams = build_teams(config)
    progress = jax.jit(lambda: phases.begin(config, teams[0]))()
    progress = phases.switch(config, teams, 1, progress)
    state = jax.tree.map(lambda x: x[0], progress.state)
    drawn = jax.tree.map(lambda x: x + 0.1, state.actor.banks["adapters"])
    actor = state.actor._replace(banks={**state.actor.banks, "adapters": drawn})
    after = phases.adopted(teams, 2, state._replace(actor=actor)).actor
    assert after.banks["net"]["linear_1"]["kernel"].shape[0] == networks
    assert moved(after.banks["adapters"], drawn)

    def weights(team, banks):
        tree, axes = team.actor.scheme.weights(banks)
        return jax.tree.map(
            lambda axis, x: x if axis == 0 else jnp.broadcast_to(x, (2, *x.shape)),
            axes, tree, is_leaf=lambda axis: axis is None,
        )  # fmt: skip

    one, other = weights(teams[1], actor.banks), weights(teams[2], after.banks)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, other)


def test_a_merge_needs_agents_that_still_share_to_train_them_as_shared():
    shared = load("sharing=shared_lora", "phases=[ps:40,shared_lora:40,merge,ps]")
    assert len(build_teams(shared)) == 3
    own = load("phases=[ps:40,ps_lora:40,merge,ps]")
    with pytest.raises(ConfigError, match="networks of their own, which ps cannot train"):
        build_teams(own)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name, base", [("bias", "ps"), ("seps_lora", "seps")])
def test_every_backbone_takes_turns(name, base):
    words = [word for word in TINY if not (name == "bias" and word.startswith("sharing."))]
    listed = f"[{base}:40,{name}:40,{base}:40,merge,{name}]"
    config = configuration.load([*words, "total_steps=200", f"sharing={name}", f"phases={listed}"])
    plan.check(config, build_teams(config, (0, 1)))


def test_optimisers_begin_afresh_or_are_kept():
    for how, kept in (("fresh", False), ("kept", True)):
        _, pairs = states(load(f"phases={TURNS}", f"phase_optimisers={how}"))
        trained = ("adapters", "net", "adapters", "adapters")
        for number, (before, after) in enumerate(pairs):
            found = {"net", "adapters"} if kept and number < 3 else {trained[number]}
            assert set(after.opt_state) == found
            if kept and number == 1:
                equal(before.opt_state["net"], after.opt_state["net"])


def test_a_critic_that_is_adapted_takes_the_same_turns():
    config = load("critic_sharing=ps_lora", f"phases={TURNS}")
    teams = build_teams(config)
    assert [team.critic.scheme.trained for team in teams] == [
        team.actor.scheme.trained for team in teams
    ]
    assert len({id(team.critic.scheme) for team in build_teams(load(f"phases={TURNS}"))}) == 1


def test_first_numbers_are_of_every_phase_of_the_first_kind():
    config = load(f"phases={TURNS}", "pretrain.clip=0.1", "algo.clip=0.3")
    assert [config.algo_of(i).clip for i in range(5)] == [0.1, 0.3, 0.1, 0.3, 0.3]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["phases=[ps:80,ps_lora:80]"], "leave 120 steps for the last, which says 80"),
        (["phases=[ps:200,ps_lora]"], "take 200 steps already"),
        (["phases=[ps,ps_lora]"], "ps needs its number of steps, such as ps:40"),
        (["phases=[ps:81,ps_lora]"], "multiple of the 40 steps"),
        (["phases=[ps:0,ps_lora]"], "at least 1"),
        (["phases=[ps:many,ps_lora]"], "whole number"),
        (["phases=[ps_lora:80,ps]"], "must begin with ps"),
        (["phases=[ps]"], "end with another phase"),
        (["phases=ps"], "must be a list of phases"),
        (["phases=[ps:40,nps]"], "nps is not known; choose from ps, ps_lora, merge"),
        (["phases=[ps:40,ps:40,ps_lora]"], "follows itself"),
        (["phases=[ps:40,merge,ps_lora]"], "there must be one since the last merge"),
        (["phases=[ps:40,ps_lora:40,merge]"], "end with another phase"),
        (["phases=[ps:40,ps_lora:40,merge:3,ps_lora]"], "without steps"),
        (["phases=[ps:40,ps_lora]", "switch_at=80"], "drop switch_at"),
        (["phases=[ps:40,ps_lora]", "switch_when=plateau"], "exclude each other"),
        (["phases=[ps:40,mtl]", "sharing=mtl"], "choose one such as ps_lora"),
        (["phase_optimisers=kept"], "needs a list of phases"),
        (["phase_optimisers=some"], "choose one of fresh, kept"),
    ],
)  # fmt: skip
def test_refused_in_one_sentence(words, told):
    others = TINY if "sharing=mtl" not in words else [w for w in TINY if "rank" not in w]
    with pytest.raises(ConfigError) as refusal:
        configuration.load([*others, "total_steps=200", *words])
    message = str(refusal.value)
    assert told in message
    assert message[-1] in ".?" and ". " not in message and "\n" not in message
