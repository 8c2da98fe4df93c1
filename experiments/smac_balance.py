"""Is the SMAC suite on SMAX fair where it should be, hard where it should be, and sound?

    python -m experiments.smac_balance [episodes=2000] [maps=2s3z,MMM2,...] [steps=1000000]

Three players command the allies against the suite's enemy. `mirror` is the enemy's own script with
the sides exchanged. `script` is that script pressed into the agents' actions (four directions,
targets within 6). `random` draws legal actions; it plays `steps` environment steps on each map, and
every number that comes out of them must be finite. Writes
experiments/results/smac_balance.{json,md}; finished maps are not played again.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.smax_speed import random_actions
from lorasa_jax import envs, machine
from lorasa_jax.envs.smac import enemy
from lorasa_jax.envs.smac.maps import MAPS
from lorasa_jax.envs.smac.simulation import FIRST_ATTACK, HEADINGS, STOP
from lorasa_jax.errors import ConfigError
from lorasa_jax.files import write_atomically
from lorasa_jax.learn.resets import choose
from lorasa_jax.values import listed, whole

RESULTS = Path(__file__).parent / "results"
MIRRORS = ("2s3z", "3s5z", "1c3s5z", "MMM")
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


def player(env, act, group: int):
    """A compiled function that plays `group` episodes side by side from a key.

    Returns per episode: won, drawn or lost by fighting, timed out, length, return, illegal
    actions, and whether every number was finite.
    """

    def unfinished(loop):
        return ~loop[3]["done"].all()

    def step(loop):
        key, state, timestep, found = loop
        key, step_key = jax.random.split(key)
        keys = jax.random.split(step_key, group)
        after, seen = jax.vmap(lambda *xs: act(env, *xs))(keys, state, timestep)
        playing = ~found["done"]
        finite = jnp.isfinite(seen.obs).all((1, 2)) & jnp.isfinite(seen.state).all((1, 2))
        finite &= jnp.isfinite(seen.reward) & jnp.isfinite(after.battle.unit_positions).all((1, 2))
        bounded = (jnp.abs(seen.obs) <= 1.0).all((1, 2)) & (jnp.abs(seen.state) <= 1.0).all((1, 2))
        found = {
            "won": found["won"] + playing * seen.info["won"],
            "fought": found["fought"] | (playing & seen.terminated),
            "timed_out": found["timed_out"] | (playing & seen.truncated),
            "length": found["length"] + playing,
            "return": found["return"] + playing * seen.reward,
            "illegal": found["illegal"] + playing * seen.info["illegal"],
            "sound": found["sound"] & (~playing | (finite & bounded)),
            "done": found["done"] | seen.terminated | seen.truncated,
        }
        state = choose(playing, after, state)
        return key, state, choose(playing, seen, timestep), found

    @jax.jit
    def play(key):
        key, reset_key = jax.random.split(key)
        state, timestep = jax.vmap(env.reset)(jax.random.split(reset_key, group))
        no, zero = jnp.zeros(group, bool), jnp.zeros(group)
        found = {
            "won": zero, "fought": no, "timed_out": no, "length": zero.astype(int),
            "return": zero, "illegal": zero, "sound": ~no, "done": no,
        }  # fmt: skip
        return jax.lax.while_loop(unfinished, step, (key, state, timestep, found))[3]

    return play


def episodes(env, act, count: int, seed: int, steps: int = 0) -> dict:
    """Statistics of at least `count` episodes, and of at least `steps` steps."""
    play, parts, key = player(env, act, SIDE_BY_SIDE), [], jax.random.key(seed)
    while len(parts) * SIDE_BY_SIDE < count or sum(p["length"].sum() for p in parts) < steps:
        key, episode_key = jax.random.split(key)
        parts.append(jax.tree.map(np.asarray, play(episode_key)))
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    won, fought = found["won"] > 0, found["fought"]
    return {
        "episodes": len(won),
        "steps": int(found["length"].sum()),
        "win_rate": float(won.mean()),
        "lost": float((fought & ~won).mean()),
        "timed_out": float(found["timed_out"].mean()),
        "length": float(found["length"].mean()),
        "return": float(found["return"].mean()),
        "highest_return": float(found["return"].max()),
        "illegal": int(found["illegal"].sum()),
        "sound": bool(found["sound"].all()),
    }


def markdown(result: dict) -> str:
    lines = [
        f"`{result['command']}`", "",
        f"{result['device']}; jax {result['versions']['jax']}, jaxmarl "
        f"{result['versions']['jaxmarl']}. The SMAC suite on SMAX; players of the allies are told "
        "in `experiments/smac_balance.py`.", "",
        "| map | player | episodes | won | lost or drawn | timed out | length | return (most) |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, rows in result["maps"].items():
        for kind in ("mirror", "script", "random"):
            row = rows[kind]
            lines.append(
                f"| {name} | {kind} | {row['episodes']:,} | {row['win_rate']:.1%} "
                f"| {row['lost']:.1%} | {row['timed_out']:.1%} | {row['length']:.1f} "
                f"| {row['return']:.2f} ({row['highest_return']:.2f}) |"
            )
    steps = sum(rows["random"]["steps"] for rows in result["maps"].values())
    sound = all(rows[kind]["sound"] for rows in result["maps"].values() for kind in rows)
    illegal = sum(rows[kind]["illegal"] for rows in result["maps"].values() for kind in rows)
    lines += [
        "",
        f"{steps:,} steps of random legal actions: every number was "
        f"{'finite, observations and states within [-1, 1]' if sound else 'NOT finite and bounded'}"
        f"; {illegal} actions of all players were illegal.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    chosen = {"episodes": "2000", "maps": ",".join(MAPS), "steps": "1000000"}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in chosen:
            raise ConfigError(f"{key} is not a key here; use {listed(chosen)}.")
        chosen[key] = value
    count, steps = (whole(chosen[key], key) for key in ("episodes", "steps"))
    names = chosen["maps"].split(",")
    for name in names:
        if name not in MAPS:
            raise ConfigError(f"maps={name} is not known; choose from {listed(MAPS)}.")
    path = RESULTS / "smac_balance.json"
    result = json.loads(path.read_text()) if path.exists() else {"maps": {}}
    result |= {
        "command": " ".join(["python -m experiments.smac_balance", *arguments]),
        "device": machine.name(),
        "versions": {"jax": jax.__version__, "jaxmarl": _version("jaxmarl")},
    }

    def keep():
        write_atomically(path, json.dumps(result, indent=2) + "\n")
        write_atomically(path.with_suffix(".md"), markdown(result))

    for name in names:
        rows = result["maps"].get(name)
        if rows and rows["mirror"]["episodes"] >= count and rows["random"]["steps"] >= steps:
            print(f"{name}: kept in {path}; delete that file to play again", flush=True)
            continue
        env = envs.make(f"smac_{name}", agent_ids=False)
        rows = {
            "mirror": episodes(env, mirror, count, seed=0),
            "script": episodes(env, script, count, seed=1),
            "random": episodes(env, by_chance, count, seed=2, steps=steps),
        }
        print(name, json.dumps(rows), flush=True)
        result["maps"][name] = rows
        keep()


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ConfigError as error:
        print(f"experiments.smac_balance: {error}", file=sys.stderr)
        sys.exit(2)
