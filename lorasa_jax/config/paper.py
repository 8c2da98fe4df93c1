"""The paper's hyperparameters, Tables 1-9, as data.

A cell is (environment, algorithm, sharing); `cell` gives all its numbers. Rollout threads times
rollout length is what the tables call episode length: the steps of all threads in one update.
"""

from lorasa_jax.errors import ConfigError

TOTAL_STEPS = 12_000_000
ADAPTED = ("ps_lora", "seps_lora")  # the tables' rows with a second phase

# Tables 4 and 5: rollout threads, GAE lambda; steps per update.
TASKS = {
    "halfcheetah_2x3": {"num_envs": 16, "gae_lambda": 0.93, "batch": 4000, "eval_episodes": 10},
    "walker2d_3x2": {"num_envs": 16, "gae_lambda": 0.93, "batch": 4000, "eval_episodes": 10},
    "ant_4x2": {"num_envs": 25, "gae_lambda": 0.93, "batch": 4000, "eval_episodes": 10},
    "humanoid_9_8": {"num_envs": 25, "gae_lambda": 0.90, "batch": 4000, "eval_episodes": 10},
    "smac_3s5z": {"num_envs": 10, "gae_lambda": 0.95, "batch": 3200, "eval_episodes": 32},
    "smac_1c3s5z": {"num_envs": 10, "gae_lambda": 0.95, "batch": 3200, "eval_episodes": 32},
    "smac_3s5z_vs_3s6z": {"num_envs": 10, "gae_lambda": 0.90, "batch": 3200, "eval_episodes": 32},
    "smac_MMM2": {"num_envs": 10, "gae_lambda": 0.95, "batch": 3200, "eval_episodes": 32},
}
_NAMES = tuple(TASKS)


def _column(*rows):
    """One row per task, in the tables' order: clip, epochs, learning rate, entropy coefficient."""
    return {
        name: {"clip": clip, "epochs": epochs, "lr": lr, "entropy_coef": entropy}
        for name, (clip, epochs, lr, entropy) in zip(_NAMES, rows, strict=True)
    }


_CHEETAH = (0.2, 5, 3e-4, 0.0)
_MAP = (0.2, 5, 5e-4, 0.01)
TABLE_6 = _column(_CHEETAH, _CHEETAH, (0.2, 8, 3e-4, 0.0), _CHEETAH, _MAP, _MAP, _MAP, _MAP)
TABLE_7 = _column(
    _CHEETAH, (0.2, 3, 3e-4, 0.0), (0.2, 3, 3e-4, 0.0), (0.2, 3, 3e-4, 0.0),
    (0.2, 3, 5e-4, 0.01), (0.2, 3, 5e-4, 0.01), (0.1, 5, 5e-4, 0.01), _MAP,
)  # fmt: skip
TABLE_8 = _column(
    _CHEETAH, _CHEETAH, (0.2, 8, 3e-4, 0.0), _CHEETAH,
    _MAP, (0.2, 3, 5e-4, 0.01), _MAP, _MAP,
)  # fmt: skip
TABLE_9 = _column(
    _CHEETAH, _CHEETAH, (0.2, 8, 3e-4, 0.0), _CHEETAH,
    (0.2, 5, 3e-4, 0.01), (0.2, 5, 3e-4, 0.01), (0.05, 5, 3e-4, 0.001), (0.05, 5, 3e-4, 0.001),
)  # fmt: skip

# Tables 1 and 2: rank and the step of the switch to fine-tuning; None where it does not apply.
_RANKS = {
    ("a2po", "ps_lora"): ((8, 3e6), (8, 2e6), (8, 4e6), (16, 3e6),
                          (8, 2e5), (8, 5e5), (16, 2e6), (8, 2e6)),
    ("a2po", "seps_lora"): (None, (8, 2e6), (8, 4e6), None,
                            (8, 3e5), (8, 1e5), (16, 5e6), (16, 2e6)),
    ("mappo", "ps_lora"): ((8, 1e5), (8, 2e6), (8, 4e6), (16, 1e6),
                           (8, 2e5), (8, 5e5), (8, 4e6), (8, 7e6)),
    ("mappo", "seps_lora"): (None, (8, 7e6), (8, 4e6), None,
                             (8, 2e5), (8, 5e5), (8, 4e6), (8, 6e6)),
}  # fmt: skip
TABLES_1_2 = {
    (*key, name): {"rank": row[0], "switch_at": int(row[1])}
    for key, rows in _RANKS.items()
    for name, row in zip(_NAMES, rows, strict=True)
    if row is not None
}

# Table 3, and what the authors' code sets where the paper is silent.
GLOBAL = {"gamma": 0.99, "chunk_length": 10, "max_grad_norm": 10.0, "hidden": 64}

# Not in the paper: environments without a cell take these, so that they train without further keys.
_RELATIVES = {name.split("_")[0]: name for name in _NAMES if not name.startswith("smac_")}
_ELSEWHERE = {"num_envs": 25, "gae_lambda": 0.95, "batch": 4000, "eval_episodes": 10}


def _relative(env: str) -> str | None:
    """The paper's task whose numbers an environment takes, if any is close."""
    if env in TASKS:
        return env
    family, _, map_name = env.partition("_")
    if family in ("smac", "smax"):
        return f"smac_{map_name}" if f"smac_{map_name}" in TASKS else "smac_3s5z"
    return _RELATIVES.get(family)


def cell(env: str, algo: str, sharing: str) -> dict:
    """All hyperparameters of a cell; environments that the paper does not have get close ones.

    Other partitions of the paper's robots take that robot's numbers, and other StarCraft maps the
    same map's or 3s5z's; other environments take Ant 4x2's row for optimisation and switch a third
    of the way. Algorithms that the paper does not have take MAPPO's. Raises ConfigError where the
    paper marks the cell as not applicable.
    """
    related = _relative(env)
    row = related or "ant_4x2"
    task = TASKS[related] if related else _ELSEWHERE
    lora = sharing in ADAPTED
    sequential = algo != "mappo"
    if algo != "a2po":
        algo = "mappo"
    if algo == "mappo":
        table = TABLE_9 if lora else TABLE_6
    else:
        table = TABLE_8 if lora else TABLE_7 if sharing == "ps" else TABLE_6
    numbers = table[row]
    values = {
        "num_envs": task["num_envs"],
        "rollout_length": task["batch"] // task["num_envs"],
        "gae_lambda": task["gae_lambda"],
        "eval_episodes": task["eval_episodes"],
        "total_steps": TOTAL_STEPS,
        "clip": numbers["clip"],
        "epochs": numbers["epochs"],
        "actor_lr": numbers["lr"],
        "critic_lr": numbers["lr"],
        "entropy_coef": numbers["entropy_coef"],
        **GLOBAL,
    }
    if sequential:
        on_maps = env.startswith(("smac_", "smax_"))
        values |= {"loop": "epoch" if on_maps else "agent", "two_stage": not on_maps}
    if lora:
        if (algo, sharing, row) not in TABLES_1_2 and env == row:
            raise ConfigError(
                f"sharing={sharing} has no cell for env={env}: two agents cannot be clustered; "
                "choose ps_lora."
            )
        values.update(TABLES_1_2.get((algo, sharing, row), TABLES_1_2[algo, sharing, "ant_4x2"]))
        values["alpha"] = float(values["rank"])
    return values
