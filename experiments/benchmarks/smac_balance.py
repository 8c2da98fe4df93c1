"""Is the SMAC suite on SMAX fair where it should be, hard where it should be, and sound?

    python -m experiments.smac_balance [episodes=2000] [maps=2s3z,MMM2,...] [steps=1000000]
        [out=outputs/smac_balance]

Three players command the allies against the suite's enemy. `mirror` is the enemy's own script with
the sides exchanged. `script` is that script pressed into the agents' actions (four directions,
targets within 6). `random` draws legal actions; it plays `steps` environment steps on each map, and
every number that comes out of them must be finite. Writes out/smac_balance.{json,md}; maps that are
finished there are not played again.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command, measurement
from experiments.smax_speed import random_actions
from lorasa_jax import envs, keys
from lorasa_jax.envs.smac import enemy
from lorasa_jax.envs.smac.maps import MAPS
from lorasa_jax.envs.smac.simulation import FIRST_ATTACK, HEADINGS, STOP
from lorasa_jax.learn.resets import choose

SIDE_BY_SIDE = 250


def mirror(env, key, state, timestep):
    return env.command(key, state, enemy.attack_move(env.battle, state.battle, allies=True))


def script(env, key, state, timestep):
    """The attack where it is legal, else the open direction nearest to the way there."""
    battle, n = state.battle, env.num_agents
    orders = enemy.attack_move(env.battle, battle, allies=True)
    slots = env.battle.roster.slots[:n, : env.action_space.n - FIRST_ATTACK]
    chosen = (slots == orders.target[:, None]) & timestep.legal[:, FIRST_ATTACK:]
    way = battle.unit_positions[orders.target] - battle.unit_positions[:n]
    way = jnp.where((orders.target == np.arange(n))[:, None], orders.heading, way)
    scores = jnp.where(timestep.legal[:, :STOP], way @ HEADINGS[:STOP].T, -jnp.inf)
    walk = jnp.where(scores.max(-1) > 0.0, jnp.argmax(scores, axis=-1), STOP)
    actions = jnp.where(chosen.any(-1), FIRST_ATTACK + jnp.argmax(chosen, axis=-1), walk)
    return env.step(key, state, actions)


def by_chance(env, key, state, timestep):
    key, step_key = jax.random.split(key)
    return env.step(step_key, state, random_actions(key, timestep.legal))


def counted(tally: dict, playing, after, seen) -> dict:
    """The tally [episode] after one more step of the episodes that are still playing."""
    finite = jnp.isfinite(seen.obs).all((1, 2)) & jnp.isfinite(seen.state).all((1, 2))
    finite &= jnp.isfinite(seen.reward) & jnp.isfinite(after.battle.unit_positions).all((1, 2))
    bounded = (jnp.abs(seen.obs) <= 1.0).all((1, 2)) & (jnp.abs(seen.state) <= 1.0).all((1, 2))
    return {
        "won": tally["won"] + (playing & seen.info["won"]).astype(float),
        "fought": tally["fought"] | (playing & seen.terminated),
        "timed_out": tally["timed_out"] | (playing & seen.truncated),
        "length": tally["length"] + playing.astype(int),
        "return": tally["return"] + playing.astype(float) * seen.reward,
        "illegal": tally["illegal"] + playing.astype(float) * seen.info["illegal"],
        "sound": tally["sound"] & (~playing | (finite & bounded)),
        "done": tally["done"] | seen.terminated | seen.truncated,
    }


def player(env, act, group: int):
    """A compiled function that plays `group` episodes side by side from a key.

    Returns per episode: won, drawn or lost by fighting, timed out, length, return, illegal
    actions, and whether every number was finite.
    """

    def unfinished(loop):
        return ~loop[3]["done"].all()

    def step(loop):
        key, state, timestep, tally = loop
        key, step_key = jax.random.split(key)
        step_keys = jax.random.split(step_key, group)
        after, seen = jax.vmap(lambda *xs: act(env, *xs))(step_keys, state, timestep)
        playing = ~tally["done"]
        tally = counted(tally, playing, after, seen)
        state = choose(playing, after, state)
        return key, state, choose(playing, seen, timestep), tally

    @jax.jit
    def play(key):
        key, reset_key = jax.random.split(key)
        state, timestep = jax.vmap(env.reset)(jax.random.split(reset_key, group))
        no, zero = jnp.zeros(group, bool), jnp.zeros(group)
        tally = {
            "won": zero, "fought": no, "timed_out": no, "length": zero.astype(int),
            "return": zero, "illegal": zero, "sound": ~no, "done": no,
        }  # fmt: skip
        return jax.lax.while_loop(unfinished, step, (key, state, timestep, tally))[3]

    return play


def episodes(env, act, count: int, seed: int, steps: int = 0) -> dict:
    """Statistics of at least `count` episodes, and of at least `steps` steps."""
    play, parts, key = player(env, act, SIDE_BY_SIDE), [], jax.random.key(seed)
    while len(parts) * SIDE_BY_SIDE < count or sum(p["length"].sum() for p in parts) < steps:
        key, episode_key = jax.random.split(key)
        parts.append(jax.tree.map(np.asarray, play(episode_key)))
    tally = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    won, fought = tally["won"] > 0, tally["fought"]
    return {
        "episodes": len(won),
        "steps": int(tally["length"].sum()),
        "win_rate": float(won.mean()),
        "lost": float((fought & ~won).mean()),
        "timed_out": float(tally["timed_out"].mean()),
        "length": float(tally["length"].mean()),
        "return": float(tally["return"].mean()),
        "highest_return": float(tally["return"].max()),
        "illegal": int(tally["illegal"].sum()),
        "sound": bool(tally["sound"].all()),
    }


HEADERS = (
    "map", "player", "episodes", "won", "lost or drawn", "timed out", "length", "return (most)",
)  # fmt: skip


def markdown(result: dict) -> str:
    lines = [
        f"`{result['command']}`", "",
        f"{result['device']}; jax {result['versions']['jax']}, jaxmarl "
        f"{result['versions']['jaxmarl']}. The SMAC suite on SMAX; "
        "`experiments/benchmarks/smac_balance.py` describes the players of the allies.", "",
        *measurement.table(
            HEADERS,
            [
                cells(name, kind, rows[kind])
                for name, rows in result["maps"].items()
                for kind in PLAYERS
            ],
        ),
        "", soundness(result["maps"].values()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def cells(name: str, kind: str, row: dict) -> list[str]:
    """A player's row of the table."""
    return [
        name, kind, f"{row['episodes']:,}", f"{row['win_rate']:.1%}", f"{row['lost']:.1%}",
        f"{row['timed_out']:.1%}", f"{row['length']:.1f}",
        f"{row['return']:.2f} ({row['highest_return']:.2f})",
    ]  # fmt: skip


def soundness(maps: Collection[dict]) -> str:
    """Whether all numbers were finite, and how many actions were illegal."""
    rows = [row for players in maps for row in players.values()]
    steps = sum(players["random"]["steps"] for players in maps)
    sound = all(row["sound"] for row in rows)
    return (
        f"{steps:,} steps of random legal actions: every number was "
        f"{'finite, observations and states within [-1, 1]' if sound else 'NOT finite and bounded'}"
        f"; {sum(row['illegal'] for row in rows)} actions of all players were illegal."
    )


PLAYERS = {"mirror": mirror, "script": script, "random": by_chance}


def play_map(name: str, count: int, steps: int) -> dict[str, dict]:
    """Every player's statistics on a map; the random one plays at least `steps` steps."""
    env = envs.make(f"smac_{name}", agent_ids=False)
    return {
        kind: episodes(env, act, count, seed, steps if kind == "random" else 0)
        for seed, (kind, act) in enumerate(PLAYERS.items())
    }


@dataclass(frozen=True)
class Options:
    """What is played, and where it is written."""

    maps: str = keys.key(
        ",".join(MAPS), "maps of the suite", check=measurement.names_of(MAPS),
        accepts="names with commas",
    )  # fmt: skip
    episodes: int = keys.key(2000, "least episodes of each player", least=1)
    steps: int = keys.key(1000000, "least environment steps of the random player", least=1)
    out: str = keys.key("outputs/smac_balance", measurement.OUT)


def main(arguments: list[str]) -> None:
    options = measurement.parse(Options, arguments, "smac_balance")
    out = measurement.folder(options.out)
    result = {"maps": {}} | measurement.stored(out, "smac_balance")
    result |= measurement.described("smac_balance", arguments, "jax", "jaxmarl")
    for name in measurement.names(options.maps):
        if _enough(result["maps"].get(name), options):
            print(f"{name}: kept in {out}; delete its files to play again", flush=True)
            continue
        rows = play_map(name, options.episodes, options.steps)
        print(name, json.dumps(rows), flush=True)
        result["maps"][name] = rows
        measurement.write(out, "smac_balance", result, markdown(result))


def _enough(rows, options):
    """Whether a map's rows are of as many episodes and steps as are asked for."""
    return (
        rows is not None
        and rows["mirror"]["episodes"] >= options.episodes
        and rows["random"]["steps"] >= options.steps
    )


if __name__ == "__main__":
    command.run(main)
