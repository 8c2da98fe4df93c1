import pytest

from lorasa_jax import config as configuration
from lorasa_jax.errors import ConfigError
from lorasa_jax.training.switching import RULES


def holds(rule, returns, **numbers):
    """The first evaluation (counted from 0) at which the rule holds, or None."""
    given = {"threshold": None, "patience": 3, "margin": 0.0, **numbers}
    for i in range(len(returns)):
        if RULES[rule](returns[: i + 1], **given):
            return i
    return None


def test_threshold_is_reached_by_the_last_evaluation_alone():
    assert holds("threshold", [1.0, 4.9, 5.0, 2.0], threshold=5.0) == 2
    assert holds("threshold", [1.0, 4.9], threshold=5.0) is None


def test_improving_needs_as_many_rises_in_a_row():
    assert holds("improving", [0.0, 1.0, 2.0, 1.5, 2.0, 3.0, 4.0]) == 6
    assert holds("improving", [0.0, 1.0, 2.0, 3.0], threshold=3.5) is None
    assert holds("improving", [0.0, 1.0, 2.0, 3.0, 4.0], threshold=3.5) == 4


def test_plateau_is_a_best_that_stays_the_best():
    assert holds("plateau", [0.0, 5.0, 4.0, 4.5, 4.9]) == 4
    assert holds("plateau", [0.0, 5.0, 4.0, 5.1, 4.9, 5.0]) is None
    assert holds("plateau", [0.0, 5.0, 4.0, 5.1, 4.9, 5.0], margin=0.1) == 4


@pytest.mark.parametrize(
    "overrides, told",
    [
        (["switch_when=threshold"], "needs switch_threshold=RETURN"),
        (["switch_threshold=3"], "switch_threshold needs switch_when"),
        (["switch_when=often"], "choose one of threshold, improving, plateau"),
        (["switch_when=plateau", "switch_threshold=3"], "knows no switch_threshold"),
        (["sharing=ps", "switch_when=improving"], "needs a second phase"),
        (["sharing=nps", "switch_threshold=1"], "needs a second phase"),
        (["init_from=here"], "RUN@STEP"),
        (["init_from=here@4001"], "multiple of the 4000 steps"),
        (["init_from=here@8000", "switch_at=4000"], "differs from init_from's step 8000"),
        (["init_from=here@8000", "switch_when=improving"], "exclude each other"),
        (["sharing.rank_pattern={head:2}"], "no layer"),
        (["sharing.targets=[linear_1]", "sharing.rank_pattern={gru_*:2}"], "none of sharing.t"),
        (["sharing.targets=[gru_*,head]"], "head, which is no layer"),
        (["sharing.bias=some"], "choose one of none, lora, all"),
        (["sharing.norms=2"], "true or false"),
        (["sharing.norms=true", "network.layer_norm=false"], "needs LayerNorms"),
        (["network.depth=4"], "must be at most 3"),
        (["network.depth=0"], "must be at least 1"),
        (["network.depth=2", "sharing.targets=[linear_3]"], "linear_3, which is no layer"),
        (["network.kind=rnn"], "choose one of gru, lstm, ff"),
        (["critic_sharing=seps"], "choose one of ps, nps, ps_lora"),
        (["sharing=ps", "critic_sharing=ps_lora"], "needs the two phases"),
        (["sharing=seps", "sharing.grouping=state"], "choose one of observation, reward"),
        (["algo=a2po", "algo.trace=long"], "choose one of capped, running, squared, none"),
        (["algo=a2po", "algo.order=best"], "choose one of semi_greedy, random, fixed"),
        (["algo=a2po", "algo.two_stage=perhaps"], "true or false"),
        (["algo=a2po", "algo.others_clip=0"], "above 0"),
    ],
)  # fmt: skip
def test_refused_in_one_sentence(overrides, told):
    with pytest.raises(ConfigError) as refusal:
        configuration.load(overrides)
    message = str(refusal.value)
    assert told in message
    assert message[-1] in ".?" and ". " not in message and "\n" not in message


def test_a_rule_switches_at_the_latest_before_the_last_update():
    config = configuration.load(["switch_when=plateau", "total_steps=20000"])
    assert config.phase_ends == (4, 5)
    assert "rule `plateau`" in config.notes[0]


def test_starting_from_a_checkpoint_puts_the_switch_there():
    config = configuration.load(["init_from=runs/a@8000", "total_steps=20000"])
    assert config.switch_at == 8000


def test_a2po_takes_the_papers_loops_and_stages():
    ant = configuration.load(["env=ant_4x2", "algo=a2po"]).algo
    assert (ant.loop, ant.two_stage, ant.trace, ant.order) == (
        "agent",
        True,
        "capped",
        "semi_greedy",
    )
    happo = configuration.load(["env=ant_4x2", "algo=happo"]).algo
    assert (happo.trace, happo.others, happo.ratio, happo.two_stage) == (
        "none",
        "free",
        "joint",
        False,
    )
