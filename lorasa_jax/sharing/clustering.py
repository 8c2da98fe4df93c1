"""SePS (Christianos et al. 2021): which agents are alike, from what their actions lead to.

A variational autoencoder learns one latent per agent identity that helps to predict what follows
an observation and an action; agents whose latents lie together share a network. Numbers are the
authors' (paper, Sec. 4; LoRASA's code): latent 10, width 64, Adam 3e-4, batches of 128, 10 epochs,
KL weight 1e-4; k-means with the number of groups of the best silhouette.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

LATENT, WIDTH, BATCH, EPOCHS = 10, 64, 128, 10
LEARNING_RATE, KL_WEIGHT = 3e-4, 1e-4


class Experience(NamedTuple):
    """Samples: agent [sample], obs and action [sample, ...], what followed [sample, ...]."""

    agent: jax.Array
    obs: jax.Array
    action: jax.Array
    target: jax.Array


class IdentityEncoder(nn.Module):
    """One-hot agent id -> mean and log-variance of its latent -> prediction of what follows."""

    num_agents: int
    target_size: int

    def setup(self):
        self.enter = nn.Dense(WIDTH)
        self.moments = nn.Dense(2 * LATENT)
        self.first, self.second = nn.Dense(WIDTH), nn.Dense(WIDTH)
        self.leave = nn.Dense(self.target_size)

    def encode(self, agent):
        """(mean, log-variance) [..., LATENT] of agents [...]."""
        hidden = nn.relu(self.enter(jax.nn.one_hot(agent, self.num_agents)))
        return jnp.split(self.moments(hidden), 2, axis=-1)

    def __call__(self, agent, obs, action, noise):
        mean, log_variance = self.encode(agent)
        latent = mean + jnp.exp(0.5 * log_variance) * noise
        hidden = nn.relu(self.first(jnp.concatenate([latent, obs, action], axis=-1)))
        return self.leave(nn.relu(self.second(hidden))), mean, log_variance


def embed(key: jax.Array, data: Experience, num_agents: int) -> np.ndarray:
    """The mean latents [agent, LATENT] after training on the data. The key is consumed."""
    low, high = data.target.min(), data.target.max()
    target = 2.0 * (data.target - low) / jnp.maximum(high - low, 1e-8) - 1.0
    data = data._replace(target=target)
    model = IdentityEncoder(num_agents, target.shape[-1])
    init_key, noise_key, order_key = jax.random.split(key, 3)
    sample = jax.tree.map(lambda x: x[:1], data)
    params = model.init(init_key, sample.agent, sample.obs, sample.action, jnp.zeros((1, LATENT)))
    optimiser = optax.adam(LEARNING_RATE)
    size = len(data.agent)
    width = min(BATCH, size)
    batches = size // width

    def predict(params, batch, noise) -> Any:
        return model.apply(params, batch.agent, batch.obs, batch.action, noise)

    def loss(params, batch, key):
        noise = jax.random.normal(key, (batch.agent.shape[0], LATENT))
        predicted, mean, log_variance = predict(params, batch, noise)
        divergence = -0.5 * (1 + log_variance - jnp.square(mean) - jnp.exp(log_variance)).sum()
        return jnp.square(predicted - batch.target).sum() + KL_WEIGHT * divergence

    def step(carry, inputs) -> tuple[Any, None]:
        params, state = carry
        rows, key = inputs
        gradient = jax.grad(loss)(params, jax.tree.map(lambda x: x[rows], data), key)
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(params):
        orders = [
            jax.random.permutation(k, size)[: batches * width].reshape(batches, width)
            for k in jax.random.split(order_key, EPOCHS)
        ]
        rows = jnp.concatenate(orders)
        keys = jax.random.split(noise_key, len(rows))
        (params, _), _ = jax.lax.scan(step, (params, optimiser.init(params)), (rows, keys))
        return model.apply(params, jnp.arange(num_agents), method="encode")[0]

    return np.asarray(train(params), float)


def cluster(embeddings: np.ndarray, seed: int = 42) -> tuple[int, ...]:
    """The group of every agent [agent]: k-means, k of the best silhouette among 2 ... n - 1.

    Groups are numbered in the order of their first agents. Raises ValueError below 3 agents.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    count = len(embeddings)
    if count < 3:
        raise ValueError(f"{count} agents cannot be clustered; it takes 3 at least.")

    if not np.ptp(embeddings, axis=0).any():  # all latents in one point
        return (0,) * count

    def labels(k):
        # Scikit-learn's type for n_init is that of its default, a string.
        means = KMeans(k, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
        return means.fit_predict(embeddings)

    options = {k: labels(k) for k in range(2, count)}
    scored = {k: silhouette_score(embeddings, groups) for k, groups in options.items()}
    return renumbered(options[max(scored, key=lambda k: scored[k])])


def renumbered(groups) -> tuple[int, ...]:
    """Group numbers in the order of first appearance: (2, 2, 0) -> (0, 0, 1)."""
    order = {group: i for i, group in enumerate(dict.fromkeys(int(group) for group in groups))}
    return tuple(order[int(group)] for group in groups)
