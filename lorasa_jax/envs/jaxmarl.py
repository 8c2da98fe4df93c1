"""Any environment of JaxMARL, `jaxmarl_<id>`: dictionaries by agent become arrays by agent.

Observations are flattened and padded with zeros at the end, actions padded and masked. Upstream's
time limits are set so that they do not come before ours: an episode that reaches `max_steps` is
truncated there, with its true last observation, and whatever ends it before is a termination.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax import keys
from lorasa_jax.envs.stacked import upstream
from lorasa_jax.envs.types import Box, Discrete, TimeStep
from lorasa_jax.errors import ConfigError
from lorasa_jax.values import listed

_PARTICLES = (
    "simple_v3", "simple_tag_v3", "simple_world_comm_v3", "simple_spread_v3", "simple_crypto_v3",
    "simple_speaker_listener_v4", "simple_push_v3", "simple_adversary_v3", "simple_reference_v3",
    "simple_facmac_v1", "simple_facmac_3a_v1", "simple_facmac_6a_v1", "simple_facmac_9a_v1",
)  # fmt: skip
_BRAX = ("ant_4x2", "halfcheetah_6x1", "hopper_3x1", "humanoid_9|8", "walker2d_2x3")
_STORM = ("storm", "storm_2p", "storm_np")
IDS = (
    *(f"MPE_{name}" for name in _PARTICLES), "overcooked", "overcooked_v2", "hanabi", *_STORM,
    "coin_game", "switch_riddle", "jaxnav", "SMAX", "HeuristicEnemySMAX", *_BRAX,
)  # fmt: skip

# Hydra's grammar has a meaning for |.
_IDS = {f"jaxmarl_{name}".replace("|", "_"): name for name in IDS}
NAMES = tuple(_IDS)


@dataclass(frozen=True)
class Keys:
    """What can be chosen of JaxMARL's other environments."""

    max_steps: int | None = keys.key(
        None, "steps until an episode is truncated; null: upstream's horizon", least=1
    )
    team_reward: str = keys.key(
        "mean", "the team's reward: mean or sum of the agents', the first agent's, or one by name"
    )
    shaped_reward: float = keys.key(0.0, "weight of upstream's shaped reward (Overcooked)")
    arguments: dict = keys.key({}, "further arguments of upstream's constructor, such as layout",
                          accepts="{name: value}")  # fmt: skip


# Horizons that are no attribute `max_steps` of upstream's environment. Hanabi has none and ends by
# itself: 100 turns are more than its cards and information tokens allow.
_HORIZONS = {"hanabi": 100, **dict.fromkeys(_BRAX, 1000), **dict.fromkeys(_STORM, 152)}
_CLOCKS = ("max_steps", "episode_length", "num_inner_steps", "num_outer_steps", "auto_reset")


def canonical(name: str) -> str | None:
    """The registered spelling of `jaxmarl_<id>`, None if this is not one; `|` may be `_`."""
    name = name.replace("|", "_")
    return name if name in _IDS else None


def make(
    name: str,
    *,
    max_steps: int | None = None,
    team_reward: str = "mean",
    shaped_reward: float = 0.0,
    arguments: dict[str, Any] | None = None,
) -> "JaxMarl":
    """Builds `jaxmarl_<id>`.

    Args:
      max_steps: steps until an episode is truncated; None is upstream's horizon.
      team_reward: the team's reward is the `mean` or the `sum` of the agents' rewards, the
        `first` agent's, or that of an agent given by name.
      shaped_reward: weight of what upstream reports as shaped reward (Overcooked), added to each
        agent's reward.
      arguments: further arguments of the environment's constructor, such as `layout`.

    Raises:
      ConfigError: an unknown id, option value or argument; actions of mixed kinds; a package that
        is not installed.
    """
    spelling = canonical(name)
    if spelling is None:
        raise ConfigError(f"env={name} is not known; choose one of {listed(NAMES)}.")
    game, limit = _build(_IDS[spelling], max_steps, dict(arguments or {}))
    return JaxMarl(name, game, limit, team_reward, shaped_reward)


def _build(id_, limit, arguments):
    """Upstream's environment, whose own time limit is not before `limit`, and that limit."""
    for key in arguments:
        if key in _CLOCKS:
            raise ConfigError(f"env.arguments.{key} is set through env.max_steps; give that.")
    clock = {}
    if id_ in _HORIZONS:
        limit = limit or _HORIZONS[id_]
        if id_ in _BRAX:
            clock = {"episode_length": limit, "auto_reset": False}
        elif id_ in _STORM:
            clock = {"num_inner_steps": limit + 1, "num_outer_steps": 1}
    elif id_ == "coin_game":
        limit = limit or 100
        clock = {"num_outer_steps": limit // 10 + 1}
    env = _construct(id_, {**clock, **arguments})
    if id_ in _HORIZONS or id_ == "coin_game":
        return env, limit
    holder = env if "max_steps" in vars(env) else env._env
    limit = limit or holder.max_steps
    # Overcooked shows its clock, and nothing else ends an episode there.
    holder.max_steps = limit + (not id_.startswith("overcooked"))
    return env, limit


def _construct(id_, arguments):
    jaxmarl = upstream()
    layout = arguments.get("layout")
    if id_ == "overcooked" and isinstance(layout, str):
        layouts = upstream("jaxmarl.environments.overcooked").overcooked_layouts
        if layout not in layouts:
            raise ConfigError(
                f"env.arguments.layout={layout} is not known; choose one of {listed(layouts)}."
            )
        arguments = {**arguments, "layout": layouts[layout]}
    try:
        return jaxmarl.make(id_, **arguments)
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ConfigError(f"JaxMARL refuses {id_}: {reason}.") from error


class JaxMarlState(NamedTuple):
    """upstream: the environment's own state; steps []; legal [agent, actions] in this state."""

    upstream: Any
    steps: jax.Array
    legal: jax.Array


class JaxMarl:
    """A JaxMARL environment as an `Environment`; `game` is upstream's own.

    The critic's state is upstream's world state where there is one, else all observations, one
    after the other; the same for all agents. info: illegal [] counts the actions that were not
    legal, those of inactive agents included. They reach upstream all the same; one that an agent
    does not have as its last action, a negative one as its first. In Hanabi an agent may only
    pass, its last action, when it is not its turn; any other is counted and has no effect.
    """

    truncates_early = False

    def __init__(self, name, game, max_steps, team_reward="mean", shaped_reward=0.0):
        self.game, self.max_steps, self.shaped_reward = game, max_steps, shaped_reward
        self._keys = tuple(game.agents)
        self.agents = tuple(str(key) for key in self._keys)
        self.num_agents = len(self.agents)
        accepted = ("mean", "sum", "first", *self.agents)
        if team_reward not in accepted:
            raise ConfigError(
                f"env.team_reward={team_reward} is not known; choose one of {listed(accepted)}."
            )
        self.team_reward = team_reward
        spaces = [game.action_space(key) for key in self._keys]
        counts = [getattr(space, "n", None) for space in spaces]
        self.discrete = None not in counts
        if not self.discrete and any(count is not None for count in counts):
            raise ConfigError(
                f"env={name} mixes discrete and continuous actions, which cannot be one team's."
            )
        if self.discrete:
            self._widths = np.array(counts, int)
        else:
            self._shapes = [tuple(space.shape) for space in spaces]
            self._widths = np.array([int(np.prod(shape)) for shape in self._shapes])
            bounds = [(space.low, space.high) for space in spaces]
            self._bounds = [tuple(np.asarray(x, np.float32) for x in pair) for pair in bounds]
        self._width = int(max(self._widths))
        self.action_space = Discrete(self._width) if self.discrete else Box(self._width)
        self._exists = np.arange(self._width) < self._widths[:, None]
        key = jax.random.key(0)
        self._legal_moves = self._find_legal_moves(jax.eval_shape(game.reset, key)[1])
        views = jax.eval_shape(lambda key: self._views(game.reset(key)[0]), key)
        self.observation_size = max(view.size for view in views)
        first = jax.eval_shape(self.reset, key)
        self.state_size = first[1].state.shape[-1]
        if shaped_reward:
            self._check_shaped_reward(key, first[0])

    def reset(self, key):
        obs, state = self.game.reset(key)
        no = jnp.zeros((), bool)
        return self._timestep(
            state, obs, jnp.zeros((), jnp.int32), reward=jnp.zeros(()), over=no,
            active=jnp.ones(self.num_agents, bool), illegal=jnp.zeros(()),
        )  # fmt: skip

    def step(self, key, state, actions):
        illegal = jnp.zeros(())
        if self.discrete:
            chosen = jax.nn.one_hot(actions, self._width, dtype=bool)
            illegal = jnp.sum(~(chosen & state.legal).any(-1)).astype(jnp.float32)
        obs, after, rewards, dones, info = self.game.step_env(
            key, state.upstream, self._to_upstream(actions)
        )
        over = jnp.asarray(dones["__all__"], bool)
        gone = jnp.stack([jnp.asarray(dones.get(key, over), bool) for key in self._keys])
        steps = state.steps + 1
        if "truncation" in info:
            over &= info["truncation"] == 0
        return self._timestep(
            after, obs, steps, reward=self._team_reward(rewards, info),
            over=over & ~self._clock_only(steps), active=~gone | over, illegal=illegal,
        )  # fmt: skip

    def _clock_only(self, steps):
        """Overcooked ends by its clock alone, and only then."""
        shows_clock = type(self.game).__name__ in ("Overcooked", "OvercookedV2")
        return (steps >= self.max_steps) & shows_clock

    def _timestep(self, state, obs, steps, *, reward, over, active, illegal):
        legal = self._legal(state)
        state = jax.tree.map(_strong, state)
        views = self._views(obs)
        if isinstance(obs, dict) and "world_state" in obs:
            view = _flat(obs["world_state"])
        else:
            view = jnp.concatenate(views)
        width = self.observation_size
        padded = [jnp.pad(agent_view, (0, width - agent_view.size)) for agent_view in views]
        return JaxMarlState(state, steps, legal), TimeStep(
            obs=jnp.stack(padded),
            state=jnp.broadcast_to(view, (self.num_agents, view.size)),
            reward=reward.astype(jnp.float32),
            terminated=over,
            truncated=(steps >= self.max_steps) & ~over,
            active=active,
            legal=legal,
            info={"illegal": illegal},
        )

    def _views(self, obs):
        """What each agent sees, as one vector of its own length."""
        if isinstance(obs, dict) and "inventory" in obs:
            # STORM's inventories [row, agent]: only the last two rows are shown to everyone.
            scene, inventory = obs["observations"], obs["inventory"]
            return [
                _flat((scene[i], inventory[:, i], inventory[3:])) for i in range(self.num_agents)
            ]
        return [_flat(self._part(obs, i)) for i in range(self.num_agents)]

    def _part(self, tree, agent: int):
        """What belongs to one agent, in each of the forms that upstream uses."""
        if isinstance(tree, dict) and self._keys[agent] in tree:
            return tree[self._keys[agent]]
        if isinstance(tree, tuple | list):
            return tree[agent]
        return jax.tree.map(lambda leaf: leaf[agent], tree)

    def _team_reward(self, rewards, info):
        each = jnp.stack(
            [jnp.asarray(self._part(rewards, i), jnp.float32) for i in range(self.num_agents)]
        )
        if self.shaped_reward:
            shaped = [info["shaped_reward"][key] for key in self._keys]
            each += self.shaped_reward * jnp.stack(shaped)
        if self.team_reward in ("mean", "sum"):
            return getattr(jnp, self.team_reward)(each)
        return each[0 if self.team_reward == "first" else self.agents.index(self.team_reward)]

    def _to_upstream(self, actions):
        """Actions by agent, in upstream's ranges and shapes."""
        if self.discrete:
            actions = jnp.clip(actions, 0, self._widths - 1)
            return {key: actions[i] for i, key in enumerate(self._keys)}
        upstream_actions = {}
        for i, key in enumerate(self._keys):
            low, high = self._bounds[i]
            action = jnp.clip(actions[i, : self._widths[i]], -1.0, 1.0).reshape(self._shapes[i])
            upstream_actions[key] = low + (action + 1) / 2 * (high - low)
        return upstream_actions

    def _legal(self, state):
        if self._legal_moves is None:
            return jnp.asarray(self._exists)
        masks = self._legal_moves(state)
        rows = [jnp.asarray(masks[key], bool) for key in self._keys]
        return jnp.stack([jnp.pad(row, (0, self._width - row.size)) for row in rows])

    def _find_legal_moves(self, state):
        """Upstream's function from states to masks by agent; None where all actions are legal."""
        for name in ("get_legal_moves", "get_avail_actions") if self.discrete else ():
            function = getattr(self.game, name, None)
            if function is not None:
                try:
                    jax.eval_shape(function, state)
                except NotImplementedError:
                    continue
                return function
        return None

    def _check_shaped_reward(self, key, state):
        shape = (self.num_agents,) if self.discrete else (self.num_agents, self._width)
        actions = jnp.zeros(shape, int if self.discrete else float)

        def info(state):
            return self.game.step_env(key, state.upstream, self._to_upstream(actions))[4]

        if "shaped_reward" not in jax.eval_shape(info, state):
            raise ConfigError(
                f"env.shaped_reward={self.shaped_reward} must be 0 where upstream reports none."
            )


def _flat(tree):
    """One float vector of all leaves."""
    return jnp.concatenate([jnp.ravel(x).astype(jnp.float32) for x in jax.tree.leaves(tree)])


def _strong(x):
    """The same array with a dtype of its own, so that reset and step agree."""
    return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else jnp.asarray(x, x.dtype)
