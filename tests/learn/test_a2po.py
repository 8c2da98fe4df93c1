"""The sequential update against a plain Python loop: no blocks, no scan, one agent at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.envs.types import Box
from lorasa_jax.learn import a2po, rollout, value_norm
from lorasa_jax.learn.clips import CLIPS
from lorasa_jax.sharing import adapted, mtl, nps, ps
from lorasa_jax.sharing.spec import LoraSpec

ENVS, LENGTH, CHUNK = 4, 6, 2
HP = a2po.A2po(
    num_envs=ENVS, rollout_length=LENGTH, chunk_length=CHUNK, epochs=2, clip=0.2, gamma=0.9,
    gae_lambda=0.8, entropy_coef=0.01, order="fixed", loop="agent")  # fmt: skip
SPEC = LoraSpec(rank=2, alpha=2.0)
LEARNING_RATE = 0.1  # of make_team's plain gradient descent


def shared(banks, agent):
    del agent
    return jax.tree.map(lambda x: x[0], banks["net"])


def separate(banks, agent):
    return jax.tree.map(lambda x: x[agent], banks["net"])


def with_heads(banks, agent):
    trunk = jax.tree.map(lambda x: x[0], banks["trunk"])
    return {**trunk, **jax.tree.map(lambda x: x[agent], banks["head"])}


def with_adapters(banks, agent):
    net = shared(banks, agent)
    for layer, adapter in banks["adapters"].items():
        if "offset" in adapter:
            net[layer] = net[layer] + adapter["offset"][agent]
            continue
        own = jax.tree.map(lambda x: x[agent], adapter)
        delta = own["full"] if "full" in own else own["a"] @ own["b"]
        net[layer] = {**net[layer], "kernel": net[layer]["kernel"] + delta}
    return net


# How one agent's network follows from the banks, and the scheme that says so.
ACTORS = {
    "ps": (shared, ps(2)),
    "nps": (separate, nps(2)),
    "mtl": (with_heads, mtl(2)),
    "ps_lora": (with_adapters, adapted(ps(2), SPEC)),
}


class Loop:
    """The same update, written as the algorithm's text reads."""

    def __init__(self, team, state, hp, actor_of, critic_of):
        self.team, self.hp, self.actor_of, self.critic_of = team, hp, actor_of, critic_of
        self.actor, self.critic = state.actor.banks, state.critic.banks
        self.norm = state.value_norm
        _, collect_key = jax.random.split(state.key)
        self.trajectory = jax.jit(lambda key, state: rollout.collect(key, team, state, hp)[1])(
            collect_key, state
        )
        self.steps = jax.tree.map(rollout.merge_time, self.trajectory.transitions)
        mean, std = value_norm.moments(self.norm)
        trajectory = self.trajectory._replace(
            last_value=self.trajectory.last_value * std[None] + mean[None],
            end_values=self.trajectory.end_values * std[None, None] + mean[None, None],
        )
        self.values = self.steps.value * std[None, None] + mean[None, None]
        following = rollout.next_values(trajectory, self.values)
        alive = (~self.steps.terminated[..., None]).astype(float)
        self.errors = self.steps.reward[..., None] + hp.gamma * alive * following - self.values
        self.goes_on = (~(self.steps.terminated | self.steps.truncated)).astype(float)
        # Compiled once for all agents and steps; the loop around them is plain Python.
        self.gradient, self.ratio_of = jax.jit(jax.grad(self.loss)), jax.jit(self.aggregated)

    def outputs(self, role, net, carries, inputs, agent):
        """The network's outputs [time, env, ...], chunk by chunk from the stored carries."""
        parts = []
        for chunk in range(LENGTH // CHUNK):
            rows = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
            _, out = role.network.apply(
                {"params": net}, carries[chunk, :, agent], inputs[rows, :, agent],
                self.steps.first[rows],
            )  # fmt: skip
            parts.append(out)
        return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)

    def change(self, actor, agent):
        """log pi_now - log pi_old [time, env, dimension] of one agent."""
        out = self.outputs(
            self.team.actor, self.actor_of(actor, agent), self.trajectory.actor_carry,
            self.steps.obs, agent,
        )  # fmt: skip
        legal = self.steps.legal[:, :, agent]
        action = self.steps.action[:, :, agent]
        now = self.team.distribution.log_prob(out, legal, action)
        entropy = self.team.distribution.entropy(out, legal)
        return now - self.steps.log_prob[:, :, agent], entropy

    def ratio(self, agent):
        return self.ratio_of(self.actor, agent)

    def aggregated(self, actor, agent):
        change, _ = self.change(actor, agent)
        if self.hp.others == "free":
            return jnp.exp(change.sum(-1))
        exists = self.steps.legal[:, :, agent]  # agent 1 has one dimension, and one of padding
        return jnp.where(exists, jnp.exp(change), 0.0).sum(-1) / exists.sum(-1).astype(float)

    def trace(self, agent, ratio):
        found, following = [], jnp.zeros(ENVS)
        for t in reversed(range(LENGTH)):
            reach = 0.0
            if t + 1 < LENGTH:
                cut = 1.0 if self.hp.trace == "none" else jnp.minimum(1.0, ratio[t + 1])
                reach = self.hp.gamma * self.hp.gae_lambda * cut * self.goes_on[t]
            following = self.errors[t, :, agent] + reach * following
            found.append(following)
        return jnp.stack(found[::-1])

    def loss(self, trained, agent, advantage, target, others, clip):
        actor, critic = trained
        change, entropy = self.change(actor, agent)
        if self.hp.ratio == "joint":
            change = change.sum(-1, keepdims=True)
        ratio = jnp.exp(change)
        active = self.steps.active[:, :, agent].astype(float)
        if self.hp.others == "free":
            advantage = others * advantage
        else:
            ratio = ratio * others[..., None]
        low = jnp.minimum(
            ratio * advantage[..., None],
            jnp.clip(ratio, 1 - clip, 1 + clip) * advantage[..., None],
        ).sum(-1)
        policy = -((low + self.hp.entropy_coef * entropy) * active).sum() / active.sum()
        out = self.outputs(
            self.team.critic, self.critic_of(critic, agent), self.trajectory.critic_carry,
            self.steps.state, agent,
        )  # fmt: skip
        value, old = out["value"][..., 0], self.steps.value[:, :, agent]
        clipped = old + jnp.clip(value - old, -self.hp.clip, self.hp.clip)
        errors = [jnp.abs(x - target) for x in (value, clipped)]
        huber = [jnp.where(e < 10, e**2 / 2, 10 * (e - 5)) for e in errors]
        return policy + jnp.maximum(*huber).mean()

    def gradient_step(self, agent, advantage, returns, others, clip, actor_too=True):
        moved = value_norm.update(self.norm, returns.mean(), jnp.square(returns).mean())
        self.norm = jax.tree.map(lambda old, new: old.at[agent].set(new[agent]), self.norm, moved)
        mean, std = value_norm.moments(self.norm)
        target = (returns - mean[agent]) / std[agent]
        trained = (self.actor, self.critic)
        gradient = self.gradient(trained, agent, advantage, target, others, clip)
        frozen = set(self.actor) - set(self.team.actor.scheme.trained)
        down = jax.tree.map(lambda x, g: x - LEARNING_RATE * g, trained, gradient)
        if actor_too:
            self.actor = {**down[0], **{name: self.actor[name] for name in frozen}}
        self.critic = down[1]

    def __call__(self):
        hp, n = self.hp, self.team.env.num_agents
        advantages = jnp.stack(
            [self.trace(agent, jnp.ones((LENGTH, ENVS))) for agent in range(n)], axis=-1
        )
        rounds, steps = (1, hp.epochs) if hp.loop == "agent" else (hp.epochs, 1)
        for index in range(rounds):
            anew = hp.trace_others == "preceding" and index > 0
            if anew:
                everyone = functools.reduce(jnp.multiply, [self.ratio(j) for j in range(n)])
                traces = [self.trace(agent, everyone) for agent in range(n)]
                advantages = jnp.stack(traces, axis=-1)
            for agent in range(n):
                others = [j for j in range(n) if j != agent and (j < agent or index > 0)]
                ratios = {j: self.ratio(j) for j in range(n)}
                traced = [j for j in others if j < agent] if anew else others
                if traced:
                    product = functools.reduce(jnp.multiply, [ratios[j] for j in [*traced, agent]])
                    advantages = advantages.at[..., agent].set(self.trace(agent, product))
                active = self.steps.active.astype(float)
                mean = (advantages * active).sum() / active.sum()
                spread = jnp.sqrt((jnp.square(advantages - mean) * active).sum() / active.sum())
                normal = ((advantages - mean) / (spread + 1e-5))[..., agent]
                returns = advantages[..., agent] + self.values[..., agent]
                for _ in range(steps):
                    if hp.refresh == "step":
                        ratios = {j: self.ratio(j) for j in range(n)}
                    factor = functools.reduce(
                        jnp.multiply, [ratios[j] for j in others], jnp.ones((LENGTH, ENVS))
                    )
                    if hp.others == "clipped":
                        half = hp.clip / 2
                        factor = jnp.clip(factor, 1 - half, 1 + half)
                    clip = CLIPS[hp.clip_schedule](hp.clip, agent + 1, n)
                    if hp.two_stage:
                        self.gradient_step(agent, normal, returns, factor, clip, actor_too=False)
                    self.gradient_step(agent, normal, returns, factor, clip)
        return self.actor, self.critic, self.norm


AUTHORS = {"loop": "epoch", "clip_schedule": "tight", "refresh": "step"}
HAPPO = {"trace": "none", "others": "free", "clip_schedule": "constant", "ratio": "joint"}


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "sharing, form",
    [
        ("ps", {}),
        ("ps", AUTHORS),
        pytest.param("nps", {"two_stage": True}, marks=pytest.mark.long),
        ("nps", HAPPO),
        pytest.param("mtl", {"loop": "epoch"}, marks=pytest.mark.long),
        pytest.param("nps", {"loop": "epoch", "trace_others": "preceding"}, marks=pytest.mark.long),
        pytest.param("ps", {**AUTHORS, "trace_others": "preceding"}, marks=pytest.mark.long),
        ("ps_lora", {}),
    ],
    ids=str,
)
def test_the_sequential_update_equals_a_plain_loop(sharing, form, make_team, make_state, counter):
    actor_of, scheme = ACTORS[sharing]
    critic_of, critic = (separate, nps(2)) if sharing == "nps" else (shared, ps(2))
    team = make_team(counter(action_space=Box(2)), scheme, critic)
    state = make_state(team, ENVS)
    hp = HP.replace(**form)
    ours, _, _ = jax.jit(lambda state: a2po.update(state, team, hp))(state)
    expected = Loop(team, state, hp, actor_of, critic_of)()
    found = ours.actor.banks, ours.critic.banks, ours.value_norm
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), found, expected
    )
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), ours.actor.banks, state.actor.banks
    )
    for name in scheme.trained:
        assert max(jax.tree.leaves(moved[name])) > 1e-3


@pytest.mark.long
@pytest.mark.full
def test_others_ratios_matter(make_team, make_state, counter):
    """Without its corrections the second agent's update would be another."""
    team = make_team(counter(action_space=Box(2)), nps(2), nps(2))
    state = make_state(team, ENVS)
    results = {}
    for name, form in {"a2po": {}, "plain": {"trace": "none", "others_clip": 1e-9}}.items():
        hp = HP.replace(**form)
        results[name] = jax.jit(lambda s, hp=hp: a2po.update(s, team, hp))(state)[0].actor.banks
    first, second = (
        max(
            float(jnp.abs(a[agent] - b[agent]).max())
            for a, b in zip(*(jax.tree.leaves(results[x]) for x in results), strict=True)
        )
        for agent in (0, 1)
    )
    assert first == 0.0
    assert second > 1e-4
