"""Weights & Biases: the same lines as metrics.jsonl, one run per seed, without an account too."""

import os

import wandb

from lorasa_jax.config import Config
from lorasa_jax.training.identity import identity


class WandbLogger:
    """One wandb run per seed under one group; offline where no account is configured."""

    def __init__(self, config: Config):
        online = os.environ.get("WANDB_API_KEY") or _logged_in()
        mode = os.environ.get("WANDB_MODE") or ("online" if online else "offline")
        who = identity(config)
        name = who.name
        group = config.logger["group"] or name
        tags = [config.env["name"], config.algo.name, config.sharing["name"]]
        self.runs = {
            seed: wandb.init(
                project=config.logger["project"],
                entity=config.logger["entity"],
                group=group,
                name=f"{name}-{seed}",
                id=f"{who.id}-{seed}",
                resume="allow",
                tags=tags,
                config={**config.to_dict(), "run_seed": seed},
                dir=config.out,
                mode=mode,  # pyright: ignore[reportArgumentType]  # which W&B checks
                reinit="create_new",
            )
            for seed in config.seeds
        }

    def log(self, rows):
        for row in rows:
            values = {key: value for key, value in row.items() if value is not None}
            self.runs[row["seed"]].log(values, step=row["env_steps"])

    def summarise(self, summary, curve):
        for run in self.runs.values():
            run.summary.update({"final_return": summary["eval_return"]})
            run.log({"curve": wandb.Image(str(curve))}, step=summary["env_steps"])

    def close(self):
        for run in self.runs.values():
            run.finish()


def _logged_in():
    from requests.utils import get_netrc_auth

    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    return get_netrc_auth(host) is not None
