"""Weights & Biases: the same lines as metrics.jsonl, one run per seed, without an account too."""

import os

import wandb

from lorasa_jax.config import Config
from lorasa_jax.config.run_keys import LONGEST
from lorasa_jax.errors import TrainingError
from lorasa_jax.training.identity import identity
from lorasa_jax.values import shown


class WandbLogger:
    """One wandb run per seed under one group; offline where no account is configured."""

    def __init__(self, config: Config):
        online = os.environ.get("WANDB_API_KEY") or _logged_in()
        mode = os.environ.get("WANDB_MODE") or ("online" if online else "offline")
        who = identity(config)
        name = who.name
        group = (config.logger["group"] or name)[:LONGEST]
        tags = [config.env["name"], config.algo.name, config.sharing["name"]]
        begun = _beginning()
        self.runs = {
            seed: begun(
                project=config.logger["project"],
                entity=config.logger["entity"],
                group=group,
                name=f"{name}-{seed}"[-LONGEST:],
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
            self._tell(row["seed"], lambda run, v=values, at=row["env_steps"]: run.log(v, step=at))

    def summarise(self, summary, curve):
        def tell(run):
            run.summary.update({"final_return": summary["eval_return"]})
            run.log({"curve": wandb.Image(str(curve))}, step=summary["env_steps"])

        for seed in tuple(self.runs):
            self._tell(seed, tell)

    def close(self):
        for seed in tuple(self.runs):
            self._tell(seed, lambda run: run.finish())

    def _tell(self, seed, tell):
        """Tells a seed's run something; one that fails, as when it was deleted online, is left."""
        if seed not in self.runs:
            return
        try:
            tell(self.runs[seed])
        except Exception as error:  # the library raises bare ones too
            del self.runs[seed]
            print(
                f"warning: Weights & Biases takes nothing more of seed {seed} ({_reason(error)}); "
                "training goes on, and metrics.jsonl has all of it"
            )


def _beginning():
    """begun(**settings): a wandb run; once the service has failed, runs are kept offline."""
    count, failed = 0, False

    def begun(**settings):
        nonlocal count, failed
        if failed:
            settings["mode"] = "offline"
        try:
            run = wandb.init(**settings)
        except Exception as error:  # the library raises bare ones too
            if settings["mode"] in ("offline", "disabled"):
                raise TrainingError(f"logger=wandb cannot begin ({_reason(error)}).") from error
            failed = True
            print(
                f"warning: Weights & Biases cannot be used ({_reason(error)}); this run is kept "
                f"offline in {settings['dir']}/wandb, from where `wandb sync` uploads it"
            )
            if count:  # the library's own process has runs, and holds this id
                settings["id"] += "-offline"
            else:
                wandb.teardown()
            return begun(**settings)
        count += 1
        return run

    return begun


def _reason(error):
    return shown(str(error), 200).rstrip(".") or type(error).__name__


def _logged_in():
    from requests.utils import get_netrc_auth

    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    return get_netrc_auth(host) is not None
