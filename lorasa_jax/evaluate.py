"""The command line for finished policies: `python -m lorasa_jax.evaluate out=RUN [key=value ...]`.

Plays episodes with the policies of a run, or of a safetensors export, and prints their results.
They are also written, by default into that folder if it can be written: `evaluation.json`, then
`evaluation-2.json` and so on; `render=true` leaves a video and an interactive page of one episode
beside them.
"""

import inspect
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lorasa_jax import keys, terminal
from lorasa_jax.errors import ConfigError
from lorasa_jax.files import write_atomically
from lorasa_jax.values import EXACT, LARGEST_SEED

if TYPE_CHECKING:
    from lorasa_jax.learn.finished import Policy


@dataclass(frozen=True)
class Options:
    """What is evaluated, and how."""

    out: str = keys.key("", "the folder of a run, or of a safetensors export")
    step: int | None = keys.key(
        None, "environment steps of a checkpoint; null: the last", least=0, most=EXACT
    )
    episodes: int = keys.key(100, "episodes per policy", least=1)
    seed: int = keys.key(0, "of the episodes", least=0, most=LARGEST_SEED)
    sampled: bool = keys.key(False, "draw actions instead of taking the best")
    policy: int | None = keys.key(
        None, "one of the run's seeds; null: all", least=0, most=LARGEST_SEED
    )
    rank: int | None = keys.key(
        None, "serve adapters at this rank at most, of a run with sharing.rank_schedule; null: as "
        "they were trained", least=1,
    )  # fmt: skip
    render: bool = keys.key(False, "write a film and episode.html of the first policy")
    format: str = keys.key("mp4", "the film's format", choices=("mp4", "gif"))
    to: str | None = keys.key(
        None, "the folder for evaluation.json, film and page; null: that of the run"
    )
    plugins: tuple[str, ...] = keys.plugins()


def parse(arguments: list[str]) -> Options:
    """Options from `key=value` arguments; ConfigError names what is wrong."""
    return keys.parse(Options, arguments, need="out")


def policies(options: Options) -> tuple["Policy", ...]:
    """The policies of the run or export in `options.out` that are to play."""
    from lorasa_jax.loading import load_all
    from lorasa_jax.training.runs import chosen_seed

    loaded = load_all(options.out, options.step)
    if options.rank is not None:
        loaded = tuple(policy.at_rank(options.rank) for policy in loaded)
    if options.policy is None:
        return loaded
    seed = chosen_seed(options.out, loaded[0].seeds, options.policy, "policy")
    return tuple(policy for policy in loaded if policy.seed == seed)


def evaluate(options: Options) -> dict:
    """Plays `options.episodes` episodes with every chosen policy; returns their results."""
    from lorasa_jax.config import plugins

    plugins.load(list(options.plugins))
    chosen = policies(options)
    _check_place(options)
    rows = results_of(chosen, options)
    pictures = (
        {"pictures": [str(path) for path in render(options, chosen[0])]} if options.render else {}
    )
    return {
        "env": chosen[0].env_name,
        "step": chosen[0].step,
        "episodes": options.episodes,
        "actions": "sampled" if options.sampled else "greedy",
        "seed": options.seed,
        **({} if options.rank is None else {"rank": options.rank}),
        "policies": rows,
        **pictures,
    }


def results_of(chosen: tuple["Policy", ...], options: Options) -> list[dict]:
    """A row of results for every policy; all are of one team, which is compiled once."""
    import jax

    from lorasa_jax.learn import play
    from lorasa_jax.learn.finished import seeing
    from lorasa_jax.training import memory

    memory.check_episodes(chosen[0], options.episodes)
    team, (_, axes) = chosen[0].team, chosen[0].weights

    @jax.jit
    def playing(key, tree, statistics):
        return play.play(
            key, seeing(team, statistics), (tree, axes), episodes=options.episodes,
            sampled=options.sampled,
        )  # fmt: skip

    rows = []
    for policy in chosen:
        key = jax.random.key(options.seed)
        results = jax.block_until_ready(playing(key, policy.weights[0], policy.statistics))
        rows.append(
            {
                "policy": policy.seed,
                **statistics_of(np.asarray(results.returns, float)),
                "length": float(np.mean(results.lengths)),
                **({} if results.won is None else {"win_rate": float(np.mean(results.won))}),
            }
        )
    return rows


def statistics_of(returns: np.ndarray, resamples: int = 2000) -> dict[str, Any]:
    """Mean, deviation, median, and the mean's 95 % bootstrap interval of returns [episode].

    The interval is None of fewer than `curves.LEAST_EPISODES`. Episodes whose return is not finite
    are left out and counted; without others all is None.
    """
    from lorasa_jax.analysis import curves

    finite = returns[np.isfinite(returns)]
    bad = len(returns) - len(finite)
    if bad:
        nothing = {"mean": None, "std": None, "median": None, "interval": None}
        rest = statistics_of(finite, resamples) if len(finite) else nothing
        return {**rest, "not_finite": bad}
    found = curves.mean_interval(returns, least=curves.LEAST_EPISODES, resamples=resamples)
    return {
        "mean": float(returns.mean()),
        "std": float(returns.std()),
        "median": float(np.median(returns)),
        "interval": None if found is None else [float(found[0]), float(found[1])],
    }


def render(options: Options, policy: "Policy") -> list[Path]:
    """Writes one episode of a policy as a video and as a page; returns their paths."""
    from lorasa_jax import episodes

    states, rewards = episodes.episode(policy, options.seed, options.sampled)
    folder, suffix = _folder(options), _suffix(_folder(options))
    video, page = folder / f"episode{suffix}.{options.format}", folder / f"episode{suffix}.html"
    env, title = episodes.pictured(policy), episodes.title(policy)
    shown = {"rewards": rewards, "title": title}
    known = inspect.signature(env.film).parameters  # others' environments may take none of them
    env.film(states, video, **{name: shown[name] for name in shown if name in known})
    env.replay(states, rewards, page, title=title)
    return [video, page]


def _folder(options: Options) -> Path:
    """Where results and pictures are written."""
    return Path(options.out if options.to is None else options.to)


def _check_place(options: Options) -> None:
    """Makes the folder that was asked for, and refuses where pictures could not be written.

    Raises:
      ConfigError: the folder cannot be written.
    """
    folder = _folder(options)
    try:
        if options.to is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"to={folder} cannot be written ({error.strerror}).") from error
    asked = options.to is not None or options.render
    if asked and folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder} cannot be written; give another to=DIR.")


def _suffix(folder: Path) -> str:
    """What tells the next evaluation's files from those of the ones before: nothing, -2, -3 ..."""
    number = 1
    while True:
        suffix = f"-{number}" if number > 1 else ""
        names = [f"evaluation{suffix}.json"]
        names += [f"episode{suffix}.{ending}" for ending in ("mp4", "gif", "html")]
        if not any(os.path.lexists(folder / name) for name in names):
            return suffix
        number += 1


def write(options: Options, results: dict) -> Path | None:
    """Writes the results under a name that no evaluation before has; returns where.

    None: the run's folder cannot be written, and no other was asked for.

    Raises:
      ConfigError: the folder that was asked for cannot be written.
    """

    folder, text = _folder(options), json.dumps(results, indent=2) + "\n"
    pictures = results.get("pictures")
    try:
        while True:
            suffix = _suffix(folder)
            if pictures:  # which have their number already
                suffix, pictures = Path(pictures[-1]).stem.removeprefix("episode"), None
            path = folder / f"evaluation{suffix}.json"
            try:
                path.touch(exist_ok=False)  # where two finish at once each has its own
            except FileExistsError:
                continue
            write_atomically(path, text)
            return path
    except OSError as error:
        if options.to is None:
            return None
        raise ConfigError(f"to={folder} cannot be written ({error.strerror}).") from error


def show(results: dict) -> None:
    """Prints the results as a table."""
    from rich.console import Console
    from rich.table import Table

    wins = any("win_rate" in row for row in results["policies"])
    headers = ["policy", "mean", "std", "median", "95 % of the mean", "length"]
    table = Table(*headers, *(["win rate"] if wins else []))
    for row in results["policies"]:
        interval = "-" if row["interval"] is None else "{:,.1f} to {:,.1f}".format(*row["interval"])
        cells = [
            f"seed {row['policy']}", _amount(row["mean"]), _amount(row["std"]),
            _amount(row["median"]), interval, f"{row['length']:,.0f}",
        ]  # fmt: skip
        table.add_row(*cells, *([f"{row['win_rate']:.1%}"] if wins else []))
    console = Console(highlight=False)
    console.print(
        f"{results['env']} at step {results['step']:,}: "
        f"{results['episodes']} {results['actions']} episodes"
    )
    console.print(table)
    for row in results["policies"]:
        if row.get("not_finite"):
            console.print(
                f"{row['not_finite']} of seed {row['policy']}'s {results['episodes']} episodes had "
                "a return that is not finite; they are left out",
                soft_wrap=True,
            )
    for path in results.get("pictures", ()):
        console.print(path, soft_wrap=True)


def _amount(value):
    return "-" if value is None else f"{value:,.1f}"


def main(arguments: list[str] | None = None) -> None:
    """Exit code 0, or 2 where something was refused."""
    arguments = sys.argv[1:] if arguments is None else arguments
    keys.help_and_leave(arguments, Options, "python -m lorasa_jax.evaluate out=RUN KEY=VALUE ...")
    with terminal.program("lorasa_jax.evaluate"):
        options = parse(arguments)
        from lorasa_jax import compile_cache

        compile_cache.enable()
        results = evaluate(options)
        show(results)
        path = write(options, results)
        if path is None:
            print(f"not written, as {options.out} cannot be; to=DIR writes them elsewhere")
        else:
            print(f"results in {path}")


if __name__ == "__main__":
    main()
