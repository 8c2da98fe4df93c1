"""Makes a policy of the package out of a run: weights, model card, and a recorded episode.

    python -m experiments.ship RUN NAME [policy=SEED] [step=STEPS] [episodes=100] [seed=0]

RUN is a run's folder, finished or not; policy chooses one of its seeds. NAME is what
`lorasa demo NAME` shows; a policy of that name is replaced. The folder lorasa_jax/pretrained/NAME
gets the agents' merged weights in half precision (one file for all agents that have the same), read
by `lorasa_jax.load`; card.json and README.md, which say what the policy is, with the returns of
`episodes` episodes of what is shipped; and replay.html.gz, the episode of `seed`.

The run's other seeds are evaluated too, and named on the card: what is shipped was chosen.
"""

import gzip
import json
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import lorasa_jax
from lorasa_jax import config as configuration
from lorasa_jax import demo, episodes, evaluate, keys, machine
from lorasa_jax.errors import ConfigError
from lorasa_jax.export import source, tensors
from lorasa_jax.export.policy import CARD
from lorasa_jax.learn.finished import Policy
from lorasa_jax.training import runs
from lorasa_jax.training.stored import SUMMARY
from lorasa_jax.values import flat

LARGEST = 200_000  # bytes of a file of weights


@dataclass(frozen=True)
class Options:
    """Which policy is shipped, and what its card is measured on."""

    policy: int | None = keys.key(None, "one of the run's seeds", least=0)
    step: int | None = keys.key(None, "environment steps of a checkpoint; null: the last", least=0)
    episodes: int = keys.key(100, "episodes that the card tells of", least=10)
    seed: int = keys.key(0, "of the episodes", least=0)


def ship(run: str, name: str, options: Options) -> Path:
    """Writes the policy's folder, whole or not at all; returns it.

    Raises:
      ConfigError: the run or the seed is not there, or the weights take too much room.
    """
    policies = {policy.seed: policy for policy in lorasa_jax.load_all(run, options.step)}
    chosen = runs.chosen_seed(run, tuple(policies), options.policy, "policy")
    demo.FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=demo.FOLDER, prefix=".") as scratch:
        part = Path(scratch) / name
        part.mkdir()
        write_weights(part, policies[chosen], name)
        shipped = lorasa_jax.load(part)
        card = card_of(policies, chosen, shipped, options)
        command = f"python -m experiments.ship RUN {name} policy={chosen}"
        (part / demo.MODEL_CARD).write_text(json.dumps(card, indent=2) + "\n")
        (part / "README.md").write_text(readme(name, card, command))
        _record(part, shipped, options.seed)
        folder = demo.FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    return folder


def write_weights(part: Path, policy: Policy, name: str) -> None:
    """Merged weights as float16, and policy.json; agents of equal weights share a file."""
    files: dict[str, dict] = {}
    agents = []
    stems = source.file_stems(policy)
    for stem, tree in zip(stems, source.agent_trees(policy), strict=True):
        arrays = {key: x.astype(np.float16) for key, x in source.named(tree).items()}
        stored = tensors.store(part, f"{stem}.safetensors", arrays)
        if stored["sha256"] in files:
            (part / stored["file"]).unlink()
        stored = files.setdefault(stored["sha256"], stored)
        agents.append(stored)
        size = (part / stored["file"]).stat().st_size
        if size > LARGEST:
            raise ConfigError(f"{stored['file']} has {size:,} bytes, more than {LARGEST:,}.")
    card = source.card(policy, agents, "safetensors", "lorasa_jax.load(FOLDER)")
    card["run"]["out"] = name
    (part / CARD).write_text(json.dumps(card, indent=2) + "\n")


def card_of(policies: dict[int, Policy], chosen: int, shipped: Policy, options: Options) -> dict:
    """What the policy is, how it was made, and what it and the run's other seeds earn."""
    playing = evaluate.Options(episodes=options.episodes, seed=options.seed)
    others = [policy for seed, policy in policies.items() if seed != chosen]
    config = policies[chosen].config
    (found,) = evaluate.results_of((shipped,), playing)
    return {
        "env": shipped.env_name,
        "preset": config.preset,
        "algo": shipped.algo,
        "sharing": shipped.sharing,
        "seed": chosen,
        "step": shipped.step,
        "total_steps": config.total_steps,
        "command": command_of(policies[chosen]),
        "precision": "float16",
        "evaluation": _kept(found, options),
        "other_seeds": {
            str(row["policy"]): _kept(row, options)
            for row in (evaluate.results_of(tuple(others), playing) if others else ())
        },
        "lorasa_jax": lorasa_jax.__version__,
        "machine": machine.name(),
    }


def _kept(row, options):
    names = ("mean", "interval", "std", "median", "length", "win_rate")
    rounded = {name: np.round(row[name], 4).tolist() for name in names if name in row}
    return {"episodes": options.episodes, "seed": options.seed, **rounded}


def command_of(policy: Policy) -> str:
    """The command of a policy's run, without `out`: its summary's, or one that means the same."""
    summary = Path(policy.out) / SUMMARY
    if summary.exists():
        words = shlex.split(json.loads(summary.read_text())["command"])
        return shlex.join(word for word in words if not word.startswith("out="))
    config = policy.config
    words = [
        f"env={config.env['name']}", f"algo={config.algo.name}",
        f"sharing={config.sharing['name']}",
        f"preset={config.preset}", f"num_seeds={config.num_seeds}", f"seed={config.seed}",
    ]  # fmt: skip
    wanted, found = flat(config.decisive()), flat(configuration.load(words).decisive())
    words += [f"{key}={value}" for key, value in wanted.items() if found.get(key) != value]
    return shlex.join(["python", "-m", "lorasa_jax.run", *words])


def _record(part, policy, seed):
    states, rewards = episodes.episode(policy, seed)
    page = part / "replay.html"
    episodes.pictured(policy).replay(states, rewards, page, title=episodes.title(policy))
    (part / demo.REPLAY).write_bytes(gzip.compress(page.read_bytes(), mtime=0))
    page.unlink()


def readme(name: str, card: dict, command: str) -> str:
    """The model card for people."""
    found, ended = card["evaluation"], card["step"] == card["total_steps"]
    trained = f"{card['step']:,} environment steps"
    if not ended:
        trained += f" of {card['total_steps']:,}: the run was stopped there"
    rows = {
        "task": card["env"],
        "preset": card["preset"],
        "algorithm, sharing": f"{card['algo']}, {card['sharing']}",
        "seed": f"{card['seed']}",
        "trained": trained,
        f"return over {found['episodes']} greedy episodes": _amount(found),
        "steps an episode": f"{found['length']:,.0f}",
        **({"games won": f"{found['win_rate']:.1%}"} if "win_rate" in found else {}),
        **{
            f"the run's seed {seed}, not shipped": _amount(row)
            for seed, row in card["other_seeds"].items()
        },
        "precision of the weights": card["precision"],
    }
    lines = [f"# {name}", "", "| | |", "|---|---|"]
    lines += [f"| {what} | {value} |" for what, value in rows.items()]
    lines += ["", "Intervals are 95 % bootstrap intervals of the mean over episodes of one fixed"]
    lines += ["policy; they say nothing about other seeds.", "", "Trained by", "", "```"]
    lines += [card["command"], "```", "", "and made of the run by", "", "```", command, "```", ""]
    lines += ["Evaluate it again with", "", "```"]
    lines += [f"python -m lorasa_jax.evaluate out=lorasa_jax/pretrained/{name}", "```", ""]
    return "\n".join(lines)


def _amount(row):
    low, high = row["interval"]
    return f"{row['mean']:,.0f} ({low:,.0f} to {high:,.0f})"


def main(arguments: list[str]) -> None:
    words = [argument for argument in arguments if "=" not in argument]
    if len(words) != 2:
        raise ConfigError("give RUN and NAME: the run's folder, and what the policy is called.")
    rest = [argument for argument in arguments if "=" in argument]
    print(ship(words[0], words[1], keys.parse(Options, rest)))


if __name__ == "__main__":
    from experiments import command

    command.run(main)
