"""The command line for finished policies: `python -m lorasa_jax.evaluate out=RUN [key=value ...]`.

Plays episodes with the policies of a run, or of a safetensors export, and prints their results;
`render=true` also leaves a video and an interactive page of one episode in that folder.
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lorasa_jax.errors import ConfigError
from lorasa_jax.values import listed, pairs, truth, whole


@dataclass(frozen=True)
class Options:
    """out: a run's or an export's folder; step: steps of a checkpoint, by default the last.

    episodes per policy; seed of the episodes; sampled: draw actions instead of taking the best.
    policy: one of the run's seeds, by default all. render: write episode.<format> and
    episode.html of the first policy. format: mp4 or gif.
    """

    out: str
    step: int | None = None
    episodes: int = 100
    seed: int = 0
    sampled: bool = False
    policy: int | None = None
    render: bool = False
    format: str = "mp4"


class Subject(NamedTuple):
    """What is evaluated: a policy for each of `seeds`.

    banks(seed) are a policy's parameters, weights(banks) every agent's weights and their axes,
    team_of(seed) the team in an environment that shows what that policy is to see.
    """

    env: str
    sharing: str
    step: int
    team: Any
    seeds: tuple[int, ...]
    banks: Callable[[int], Any]
    weights: Callable[[Any], tuple[Any, Any]]
    team_of: Callable[[int], Any]


def parse(arguments: list[str]) -> Options:
    """Options from `key=value` words; ConfigError names what is wrong."""
    chosen = pairs(arguments, [field.name for field in dataclasses.fields(Options)])
    for key, value in chosen.items():
        if key in ("sampled", "render"):
            chosen[key] = truth({"true": True, "false": False}.get(value.lower(), value), key)
        elif key in ("step", "episodes", "seed", "policy"):
            chosen[key] = whole(value, key, least=0 if key in ("seed", "policy", "step") else 1)
    if not chosen.get("out"):
        raise ConfigError("give out=RUN, the folder of a run.")
    if chosen.get("format", "mp4") not in ("mp4", "gif"):
        raise ConfigError(f"format={chosen['format']} is not known; choose one of mp4, gif.")
    return Options(**chosen)


def subject(options: Options) -> Subject:
    """The policies of the run or export in `options.out`."""
    from lorasa_jax.export.policy import CARD

    found = (_of_export if (Path(options.out) / CARD).exists() else _of_run)(options)
    if options.policy is not None and options.policy not in found.seeds:
        raise ConfigError(
            f"policy={options.policy} is not a seed of this run; choose from "
            f"{listed(map(str, found.seeds))}."
        )
    return found if options.policy is None else found._replace(seeds=(options.policy,))


def _of_run(options):
    from lorasa_jax.training import runs

    run = runs.load(options.out, options.step)
    names = run.config.env["name"], run.config.sharing["name"]
    weights = run.team.actor.scheme.weights
    return Subject(
        *names, run.env_steps, run.team, run.config.seeds, run.actor_banks, weights, run.team_of
    )


def _of_export(options):
    from lorasa_jax.export.rebuild import rebuild

    found = rebuild(options.out)
    made = found.card["run"]
    if options.step not in (None, made["step"]):
        raise ConfigError(f"out={options.out} is an export of step {made['step']}; drop step.")
    return Subject(
        found.card["env"]["name"], made["sharing"]["name"], made["step"], found.team,
        (made["seed"],), lambda seed: found.weights, lambda weights: (weights, found.axes),
        lambda seed: found.team,
    )  # fmt: skip


def evaluate(options: Options) -> dict:
    """Plays `options.episodes` episodes with every chosen policy; returns their results."""
    import jax

    from lorasa_jax.learn import play

    found = subject(options)

    @functools.cache
    def player(env):  # one for all policies, unless they see observations differently
        team = found.team._replace(env=env)

        @jax.jit
        def playing(key, banks):
            return play.play(
                key, team, found.weights(banks), episodes=options.episodes, sampled=options.sampled
            )

        return playing

    key = jax.random.key(options.seed)
    rows = []
    for seed in found.seeds:
        playing = player(found.team_of(seed).env)
        results = jax.block_until_ready(playing(key, found.banks(seed)))
        rows.append(
            {
                "policy": seed,
                **statistics_of(np.asarray(results.returns, float)),
                "length": float(np.mean(results.lengths)),
                **({} if results.won is None else {"win_rate": float(np.mean(results.won))}),
            }
        )
    pictures = (
        {"pictures": [str(path) for path in render(options, found)]} if options.render else {}
    )
    return {
        "env": found.env,
        "step": found.step,
        "episodes": options.episodes,
        "actions": "sampled" if options.sampled else "greedy",
        "seed": options.seed,
        "policies": rows,
        **pictures,
    }


def statistics_of(returns: np.ndarray, resamples: int = 2000) -> dict[str, float]:
    """Mean, deviation, median, and the mean's 95 % bootstrap interval of returns [episode]."""
    rng = np.random.default_rng(0)
    means = rng.choice(returns, (resamples, len(returns))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "mean": float(returns.mean()),
        "std": float(returns.std()),
        "median": float(np.median(returns)),
        "interval": [float(low), float(high)],
    }


def episode(found: Subject, seed: int = 0, sampled: bool = False) -> tuple[Any, np.ndarray]:
    """One episode of the first policy: its states [time + 1, ...] and rewards [time].

    Raises:
      ConfigError: the environment has no pictures.
    """
    import jax

    from lorasa_jax.learn import play

    if not hasattr(found.team.env, "film"):
        raise ConfigError(f"env={found.env} has no pictures; leave out render.")

    team = found.team_of(found.seeds[0])

    @jax.jit
    def recorded(key, banks):
        return play.record(key, team, found.weights(banks), sampled=sampled)

    recording = recorded(jax.random.key(seed), found.banks(found.seeds[0]))
    length = int(recording.length)
    states = jax.tree.map(lambda x: np.asarray(x[: length + 1]), recording.states)
    return states, np.asarray(recording.rewards[:length], float)


def title(found: Subject) -> str:
    """What stands above a replay."""
    return f"{found.env}, {found.sharing}, step {found.step:,}"


def render(options: Options, found: Subject) -> list[Path]:
    """Writes one episode of the first policy as a video and as a page; returns their paths."""
    states, rewards = episode(found, options.seed, options.sampled)
    out = Path(options.out)
    video, page = out / f"episode.{options.format}", out / "episode.html"
    found.team.env.film(states, video)
    found.team.env.replay(states, rewards, page, title=title(found))
    return [video, page]


def show(found: dict) -> None:
    """Prints the results as a table."""
    from rich.console import Console
    from rich.table import Table

    wins = any("win_rate" in row for row in found["policies"])
    headers = ["policy", "mean", "std", "median", "95 % of the mean", "length"]
    table = Table(*headers, *(["win rate"] if wins else []))
    for row in found["policies"]:
        low, high = row["interval"]
        cells = [
            f"seed {row['policy']}", f"{row['mean']:,.1f}", f"{row['std']:,.1f}",
            f"{row['median']:,.1f}", f"{low:,.1f} to {high:,.1f}", f"{row['length']:,.0f}",
        ]  # fmt: skip
        table.add_row(*cells, *([f"{row['win_rate']:.1%}"] if wins else []))
    console = Console(highlight=False)
    console.print(
        f"{found['env']} at step {found['step']:,}: {found['episodes']} {found['actions']} episodes"
    )
    console.print(table)
    for path in found.get("pictures", ()):
        console.print(path, soft_wrap=True)


def main(arguments: list[str] | None = None) -> None:
    """Exit code 0, or 2 where something was refused."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        found = evaluate(options)
    except ConfigError as error:
        print(f"lorasa_jax.evaluate: {error}", file=sys.stderr)
        sys.exit(2)
    show(found)
    from lorasa_jax.training.reporting import write_whole

    write_whole(Path(options.out) / "evaluation.json", json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
