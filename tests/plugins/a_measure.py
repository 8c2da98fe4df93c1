"""How far apart agents' weights are: the largest standard deviation over agents of any of them."""

import jax

import lorasa_jax
from lorasa_jax.analysis.weights import per_agent


def spread(out):
    policy = lorasa_jax.load(out)
    agents = policy.team.env.num_agents
    return max(float(x.std(0).max()) for x in jax.tree.leaves(per_agent(policy.weights, agents)))
