import dataclasses
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from lorasa_jax import config as configuration
from lorasa_jax.config import paper, schema
from lorasa_jax.errors import ConfigError

LAYERS = ("linear_1", "linear_2", "linear_3", "gru_x_4", "gru_h_5", "linear_6", "linear_7")


def test_a_bare_environment_is_the_papers_cell():
    config = configuration.load(["env=ant_4x2"])
    expected = {
        "name": "ps_lora", "rank": 8, "alpha": 8.0, "targets": list(LAYERS), "rank_pattern": None,
        "alpha_pattern": None, "bias": "none", "norms": False, "kind": "lora",
        "scaling": "standard", "init": "paper", "lr_ratio": 1.0,
        "by": "agent", "rank_schedule": "none",
    }  # fmt: skip
    assert {**config.sharing, **expected} == config.sharing
    assert (config.total_steps, config.switch_at) == (12_000_000, 4_000_000)
    algo = config.algo
    assert (algo.num_envs, algo.rollout_length, algo.chunk_length) == (25, 160, 10)
    assert (algo.epochs, algo.clip, algo.gae_lambda, algo.gamma) == (8, 0.2, 0.93, 0.99)
    assert (algo.actor_lr, algo.critic_lr, algo.entropy_coef) == (3e-4, 3e-4, 0.0)
    assert (algo.max_grad_norm, config.network.hidden) == (10.0, 64)
    assert config.phase_ends == (1000, 3000)


def test_cells_of_tables_1_to_9():
    assert paper.cell("humanoid_9_8", "mappo", "ps_lora")["rank"] == 16
    assert paper.cell("humanoid_9_8", "mappo", "ps_lora")["gae_lambda"] == 0.9
    assert paper.cell("smac_MMM2", "mappo", "ps_lora")["clip"] == 0.05
    assert paper.cell("smac_MMM2", "mappo", "ps")["actor_lr"] == 5e-4
    assert paper.cell("smac_3s5z_vs_3s6z", "a2po", "ps")["clip"] == 0.1
    assert paper.cell("ant_4x2", "a2po", "ps")["epochs"] == 3
    assert paper.cell("ant_4x2", "a2po", "nps")["epochs"] == 8
    assert paper.cell("smac_1c3s5z", "a2po", "ps_lora")["epochs"] == 3
    assert paper.cell("walker2d_3x2", "mappo", "seps_lora")["switch_at"] == 7_000_000
    assert paper.cell("ant_4x2", "yours", "ps_lora") | {"loop": None, "two_stage": None} == (
        paper.cell("ant_4x2", "mappo", "ps_lora") | {"loop": None, "two_stage": None}
    )
    with pytest.raises(ConfigError, match="clustered"):
        paper.cell("halfcheetah_2x3", "mappo", "seps_lora")


def test_the_switch_keeps_the_papers_share_on_a_whole_update():
    config = configuration.load(["total_steps=20000"])
    assert config.switch_at == 8_000
    assert "switch_at=8,000" in config.notes[0]
    assert configuration.load(["total_steps=8000"]).switch_at == 4_000
    assert configuration.load(["total_steps=8e6", "switch_at=4e6"]).switch_at == 4_000_000
    assert configuration.load(["sharing=ps"]).switch_at is None


def test_the_default_directory_is_the_same_for_the_same_run_only():
    first, again, other = (
        configuration.load(["total_steps=8000", *extra]).out
        for extra in ([], ["logger=wandb", "updates_per_call=9"], ["algo.clip=0.1"])
    )
    assert first == again != other


REFUSED = {
    "keep_at=[5]": "keep_at=5 must be a multiple of the 4000 steps",
    "keep_at=4000": "must be a list of steps",
    "algo.minibatches=7": "algo.minibatches=7 must divide the 400 sequences",
    "envv=ant_4x2": "unknown key envv; did you mean env?",
    "algo.clp=0.1": "did you mean algo.clip?",
    "+bar=2": "unknown key bar",
    "env=ant_9x9": "ant_4x2",
    "algo=ppo": "choose one of mappo, a2po, happo",
    "sharing=lora": "choose one of ps, nps, seps",
    "logger=tensorboard": "choose one of local, wandb",
    "sharing.rank=0": "sharing.rank=0 must be at least 1",
    "sharing.rank=-3": "at least 1",
    "sharing.rank=2.5": "whole number",
    "sharing.targets=[head]": "no layer",
    "sharing.targets=[]": "must be a list of layers",
    "sharing.targets=[linear_1,linear_1]": "twice",
    "sharing.alpha=0": "above 0",
    "switch_at=13e6": "must lie between",
    "switch_at=12e6": "must lie between",
    "switch_at=100": "must lie between",
    "switch_at=4001000": "multiple",
    "total_steps=5000": "multiple of the 4000 steps",
    "total_steps=4000": "too short",
    "total_steps=nan": "whole number",
    "total_steps=-4000": "at least 1",
    "algo.chunk_length=7": "must divide algo.rollout_length=160",
    "algo.clip=abc": "finite number",
    "algo.clip=0": "above 0",
    "algo.gamma=1.5": "at most 1",
    "algo.gae_lambda=-1": "at least 0 and at most 1",
    "algo.ratio=joints": "did you mean joint?",
    "env=ant_4x3": "did you mean ant_4x2?",
    "algo.ratio=sum": "choose one of per_dimension, joint",
    "algo.truncation=none": "choose one of bootstrap, authors",
    "algo.target_kl=0": "above 0",
    "algo.target_kl=often": "finite number",
    "algo.lr_decay=cosine": "choose one of none, linear",
    "algo.minibatches=3": "must divide the 400 sequences",
    "network.log_std=exp": "choose one of vector, linear",
    "network.std_min=0.5": "below 0.5",
    "network.std_min=-1": "at least 0",
    "env.normalise=batch": "choose one of none, running",
    "preset=best": "choose one of paper, authors, tuned",
    "num_seeds=0": "at least 1",
    "seed=1.5": "whole number",
    "resume=perhaps": "true or false",
    "env.agent_ids=some": "true or false",
    "eval_every=0": "at least 1",
    "ant_4x2": "key=value",
}


@pytest.mark.parametrize("override", REFUSED)
def test_refused_in_one_sentence(override):
    with pytest.raises(ConfigError) as refusal:
        configuration.load([override])
    message = str(refusal.value)
    assert REFUSED[override] in message
    assert "\n" not in message
    assert message[-1] in ".?"


def test_a_switch_without_a_second_phase_is_refused():
    with pytest.raises(ConfigError, match="second phase"):
        configuration.load(["sharing=nps", "switch_at=4e6"])


def test_a_key_of_another_choice_is_refused():
    with pytest.raises(ConfigError, match="not a key of sharing=nps"):
        configuration.load(["sharing=nps", "sharing.rank=8"])


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["env.engine=gpu"], "env.engine=gpu is not known; choose one of"),
        (["env.profile=v5"], "env.profile=v5 is not known"),
        (["env.action_order=legs"], "choose one of node, flat"),
        (["sharing.rank=0"], "sharing.rank=0 must be at least 1"),
        (["nonsense=1"], "unknown key nonsense"),
    ],
)
def test_the_command_leaves_with_code_2_before_compiling(arguments, message, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "lorasa_jax.run", "env=ant_4x2", f"out={out}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "compiling" not in done.stdout
    assert not out.exists()


def test_cfg_job_shows_the_resolved_cell():
    command = [sys.executable, "-m", "lorasa_jax.run", "--cfg", "job", "env=ant_4x2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "switch_at: 4000000" in done.stdout
    assert "epochs: 8" in done.stdout


def test_runs_from_before_a_key_still_are_what_they_were():
    config = configuration.load(["env=ant_4x2"])
    tree = config.to_dict()
    later = ("devices", "network.depth", "network.layer_norm", "network.std_min",
             "env.normalise", "algo.target_kl", "algo.lr_decay", "preset")  # fmt: skip
    for name in later:
        section, key = schema.place(tree, name)
        del section[key]
    before = configuration.resolve(OmegaConf.create(tree))
    assert before == dataclasses.replace(config, notes=before.notes)
    assert schema.decisive_part(tree) == config.decisive()
    for changed in (
        "devices=5", "network.depth=2", "network.layer_norm=false", "network.std_min=0.1",
        "env.normalise=running", "algo.target_kl=0.02", "algo.lr_decay=true",
    ):  # fmt: skip
        other = configuration.load(["env=ant_4x2", changed])
        assert other.decisive() != config.decisive() and other.out != config.out
