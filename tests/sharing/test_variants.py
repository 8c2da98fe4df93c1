"""Kinds of adapters: each formula, where each begins, what each trains, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lorasa_jax import config
from lorasa_jax.analysis import weights
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import team
from lorasa_jax.policy.networks import RecurrentNetwork, parameters
from lorasa_jax.sharing import adapted, grouped, ps
from lorasa_jax.sharing.spec import LoraSpec
from lorasa_jax.sharing.variants import KINDS, TEMPERATURE
from lorasa_jax.training import plan
from lorasa_jax.training.teams import build_teams

AGENTS, D, K, RANK, SCALE = 3, 6, 5, 2, 1.5
NETWORK = RecurrentNetwork({"mean": (3, 0.01, 0.0)}, {"log_std": (3, 1.0)}, 8)
WITH_A_B = ("lora", "dora")


def randomise(tree, seed=0):
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    return structure.unflatten([jnp.float32(rng.standard_normal(leaf.shape)) for leaf in leaves])


@pytest.fixture(scope="module")
def net():
    return jax.jit(lambda key: parameters(NETWORK, key, 5))(jax.random.key(0))


def layer_of(kind, seed=0):
    """A kernel, and random parts of a kind: own [agent, ...] and common."""
    kernel = randomise(jnp.zeros((D, K)), seed)
    own = KINDS[kind].own(jax.random.key(0), (D, K), RANK, "paper", AGENTS)
    make = KINDS[kind].factors or (lambda *_: {})
    return kernel, randomise(own, seed + 1), make(jax.random.key(1), kernel, RANK)


def product(*matrices):
    """A product of matrices, entry by entry."""
    first, *rest = matrices
    for other in rest:
        out = np.zeros((len(first), len(other[0])))
        for i in range(len(first)):
            for j in range(len(other[0])):
                out[i, j] = sum(first[i][m] * other[m][j] for m in range(len(other)))
        first = out
    return first


def by_hand(kind, w, own, common):
    """One agent's kernel by the formula, in double precision."""
    if kind in WITH_A_B:
        changed = w + SCALE * product(own["a"], own["b"])
        if kind == "lora":
            return changed
        for j in range(K):
            length = np.sqrt(sum(w[i, j] ** 2 for i in range(D))) + own["magnitude"][j]
            changed[:, j] *= length / np.sqrt(sum(changed[i, j] ** 2 for i in range(D)))
        return changed
    if kind == "vera":
        d, b = np.diag(own["vector_d"]), np.diag(own["vector_b"])
        return w + product(common["a"], d, common["b"], b)
    if kind == "lora_xs":
        return w + SCALE * product(common["a"], own["r"], common["b"])
    if kind == "ia3":
        return product(w, np.diag(own["ia3"]))
    if kind == "svd":
        return w + SCALE * product(own["left"], np.diag(own["singular"]), own["right"])
    share = np.exp(own["mix"] / TEMPERATURE)
    b = sum(s / share.sum() * one for s, one in zip(share, common["b"], strict=True))
    return w + SCALE * product(common["a"], own["lambda"], b)


@pytest.mark.parametrize("kind", KINDS)
def test_a_formula_by_hand(kind):
    kernel, own, common = layer_of(kind)
    if kind == "mtl_lora":
        common = randomise(common, 5)
    found = KINDS[kind].merge(kernel, own, common, SCALE)
    w, own, common = jax.tree.map(lambda x: np.asarray(x, float), (kernel, own, common))
    for i in range(AGENTS):
        wanted = by_hand(kind, w, {part: x[i] for part, x in own.items()}, common)
        np.testing.assert_allclose(found[i], wanted, rtol=1e-4, atol=1e-4)


def test_lora_xs_has_the_largest_directions_of_the_kernel():
    kernel, _, common = layer_of("lora_xs")
    left, singular, right = np.linalg.svd(np.asarray(kernel))
    best = (left[:, :RANK] * singular[:RANK]) @ right[:RANK]
    np.testing.assert_allclose(common["a"] @ common["b"], best, atol=1e-5)


def started(net, **words):
    scheme = adapted(ps(AGENTS), LoraSpec(RANK, **words))
    return scheme, scheme.adopt(jax.random.key(1), {"net": jax.tree.map(lambda x: x[None], net)})


def leaf_of(tree, path):
    for step in path:
        tree = tree[step.key]
    return tree


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind, init", [(k, i) for k in KINDS for i in KINDS[k].inits])
def test_every_kind_begins_as_the_backbone(net, kind, init):
    scheme, banks = started(net, kind=kind, init=init)
    for path, found in jax.tree_util.tree_leaves_with_path(weights.merged(scheme, banks)):
        wanted = jnp.broadcast_to(leaf_of(net, path), found.shape)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 if kind == "dora" else 0)


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_trained_parts_have_gradients(net, kind):
    scheme, banks = started(net, kind=kind)
    assert set(scheme.trained) == {"adapters"} | ({"factors"} if kind == "mtl_lora" else set())
    assert scheme.independent == (kind != "mtl_lora")
    role = team.Role(NETWORK, scheme, optax.adam(1e-2), 5)
    trained, frozen = team.split(role, randomise(banks))

    def loss(trained):
        tree, _ = scheme.weights({**frozen, **trained})
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(tree))

    gradient = jax.grad(loss)(trained)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient))
    learner = team.start(role, {**frozen, **trained})
    after, _ = team.step(role, learner, gradient, jnp.ones(AGENTS))
    assert all(after.banks[name] is frozen[name] for name in frozen)
    assert set(learner.opt_state) == set(scheme.trained)


REDUCED = {
    "ia3": {"ia3": jnp.ones},
    "lora_xs": {"r": jnp.zeros},
    "vera": {"vector_b": jnp.zeros},
    "svd": {"singular": jnp.zeros},
    "vera, d": {"vector_d": jnp.zeros},
    "dora": {"b": jnp.zeros, "magnitude": jnp.zeros},
    "mtl_lora": {"lambda": jnp.zeros},
}


@pytest.mark.parametrize("case", REDUCED)
def test_a_kind_without_its_part_is_the_backbone(case):
    kind = case.partition(",")[0]
    kernel, own, common = layer_of(kind)
    own |= {part: fill(own[part].shape) for part, fill in REDUCED[case].items()}
    found = KINDS[kind].merge(kernel, own, common, SCALE)
    np.testing.assert_allclose(found, jnp.broadcast_to(kernel, found.shape), atol=1e-6)


def test_scalings():
    standard, root = (LoraSpec(4, 8.0, rslora=r, rank_pattern=(("gru_*", 1),)) for r in (0, 1))
    assert (standard.scaling("linear_1"), root.scaling("linear_1")) == (2.0, 4.0)
    assert standard.scaling("gru_x_4") == root.scaling("gru_x_4") == 8.0


def test_pefts_start():
    own = KINDS["lora"].own(jax.random.key(0), (64, 64), 8, "peft", 4)
    np.testing.assert_array_equal(own["b"], 0.0)
    assert np.abs(own["a"]).max() <= 1 / 8
    assert np.std(own["a"]) == pytest.approx(1 / 8 / np.sqrt(3), rel=0.05)


@pytest.mark.full
def test_clusters_have_factors_of_their_own(net):
    nets = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), net)
    for kind, same in (("vera", True), ("lora_xs", False)):
        scheme = adapted(grouped((0, 1, 0)), LoraSpec(RANK, kind=kind))
        banks = scheme.adopt(jax.random.key(0), {"net": nets})
        a = banks["factors"]["linear_2"]["a"]
        assert np.array_equal(a[0], a[1]) == same
        merged = weights.merged(scheme, randomise(banks) | {"net": nets})
        assert merged["linear_2"]["kernel"].shape == (AGENTS, 8, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_deltas_and_backbone_sum_to_the_weights(net, kind):
    scheme, banks = started(net, kind=kind)
    banks = randomise(banks)
    parts = weights.backbone(scheme, banks), weights.deltas(scheme, banks)
    whole = weights.merged(scheme, banks)
    near = lambda a, b, c: np.testing.assert_allclose(a + b, c, rtol=1e-4, atol=1e-4)  # noqa: E731
    jax.tree.map(near, *parts, whole)


def test_a_learning_rate_of_bs_own():
    adam = team.adam(1e-2, 1e6)
    assert team.lora_plus(adam, 1.0) is adam
    tree = {"linear_1": {part: jnp.ones(3) for part in ("a", "b", "bias")}, "b": {"a": jnp.ones(3)}}
    plus = team.lora_plus(adam, 16.0)
    one, other = (x.update(tree, x.init(tree))[0] for x in (adam, plus))
    np.testing.assert_array_equal(other["linear_1"].pop("b"), 16 * one["linear_1"].pop("b"))
    jax.tree.map(np.testing.assert_array_equal, one, other)


WORDS = ["algo.num_envs=2", "algo.rollout_length=4", "algo.chunk_length=2", "network.hidden=4",
         "total_steps=80", "algo.epochs=1", "eval_episodes=2", "sharing.rank=2"]  # fmt: skip


@pytest.mark.sample(1)
@pytest.mark.parametrize("algo, env", [("mappo", "specialisation_4"), ("a2po", "ant_4x2")])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_sound_plan(kind, algo, env):
    more = ["sharing.lr_ratio=16"] if KINDS[kind].trains_b else []
    settings = config.load([f"env={env}", f"algo={algo}", f"sharing.kind={kind}", *WORDS, *more])
    plan.check(settings, build_teams(settings))


def test_only_adapters_have_a_ratio_of_learning_rates():
    settings = config.load(["env=specialisation_2", *WORDS, "sharing.lr_ratio=4"])
    first, last = build_teams(settings)
    tree = {"linear_1": {"b": jnp.ones(3)}}
    sizes = [
        role.optimiser.update(tree, role.optimiser.init(tree))[0]["linear_1"]["b"][0]
        for role in (first.actor, last.actor, first.critic, last.critic)
    ]
    rates = [settings.algo_of(0).actor_lr, 4 * settings.algo.actor_lr, settings.algo.critic_lr]
    np.testing.assert_allclose(sizes[:2] + sizes[3:], -np.array(rates), rtol=1e-3)


REFUSED = {
    "sharing.kind=dorra": "did you mean dora",
    "sharing.kind=vera sharing.alpha=4": "sharing.alpha=4.0 means nothing to sharing.kind=vera",
    "sharing.kind=ia3 sharing.rank_pattern={gru_*:4}": "means nothing to sharing.kind=ia3",
    "sharing.kind=ia3 sharing.scaling=rslora": "choose one of lora, dora, lora_xs, mtl_lora",
    "sharing.kind=vera sharing.init=peft": "choose one of lora, dora",
    "sharing.kind=lora_xs sharing.lr_ratio=16": "choose one of lora, dora, mtl_lora",
    "sharing.scaling=rslora sharing.rank_pattern={gru_*:4}": "needs sharing.alpha",
    "sharing.lr_ratio=0": "must be above 0",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_means_nothing_is_refused(words):
    with pytest.raises(ConfigError) as refusal:
        config.load(["env=specialisation_2", *words.split()])
    assert REFUSED[words] in str(refusal.value) and "\n" not in str(refusal.value)


def test_runs_from_before_the_keys_are_the_same_runs():
    settings = config.load(["env=specialisation_2"])
    assert not {"kind", "scaling", "init", "lr_ratio"} & set(settings.decisive()["sharing"])
    other = config.load(["env=specialisation_2", "sharing.kind=ia3"])
    assert other.decisive()["sharing"]["kind"] == "ia3"
