"""Ranks that change while adapters train: budgets and importance by hand, planted ranks found."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scheme_parts import (
    AGENTS,
    begun,
    close,
    gradients,
    only_of,
    own_weights,
    random_banks,
    refused,
    trained_by_name,
)

from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import team
from lorasa_jax.sharing import LoraSpec, adalora, adapted, ps
from lorasa_jax.sharing.scheme import When
from lorasa_jax.sharing.spec import Schedule
from lorasa_jax.sharing.variants import FORMS, KINDS

ADALORA = Schedule("adalora", 3, 1.5, warmup=0.2, settle=0.3, beta=0.9, orthogonality=0.5)
DYLORA = ADALORA._replace(name="dylora")
SVD = LoraSpec(3, 6.0, kind="svd")
SCHEMES = {
    "adalora": adapted(ps(AGENTS), SVD._replace(schedule=ADALORA)),
    "dylora": adapted(ps(AGENTS), LoraSpec(3, 6.0, kind="factored", schedule=DYLORA)),
}


@pytest.fixture(scope="module")
def banks():
    return {name: random_banks(scheme) for name, scheme in SCHEMES.items()}


def double(tree):
    return jax.tree.map(lambda x: np.asarray(x, float), tree)


# --- both ------------------------------------------------------------------------------------


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", SCHEMES)
def test_adapters_begin_as_the_backbone(name):
    old = begun(ps(AGENTS))
    trees = SCHEMES[name].adopt(jax.random.key(1), old)
    close(own_weights(SCHEMES[name], trees), own_weights(ps(AGENTS), old))


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", SCHEMES)
def test_only_the_agents_own_adapters_are_trained(name, banks):
    scheme = SCHEMES[name]
    assert scheme.trained == ("adapters",) and scheme.adapts and scheme.independent
    trees = banks[name]
    if name == "dylora":
        trees = scheme.served(trees)
    assert only_of(gradients(scheme, trees, 1)["adapters"], 1)
    assert [bank.memory for bank in scheme.banks.values()] == [False, False, True]


# --- AdaLoRA ---------------------------------------------------------------------------------


def test_the_form_of_singular_values_by_hand():
    scheme = adapted(ps(AGENTS), SVD)
    trees = random_banks(scheme)
    net = double(jax.tree.map(lambda x: x[0], trees["net"]))
    for i, own in enumerate(own_weights(scheme, trees)):
        for layer, parts in trees["adapters"].items():
            left, values, right = (double(parts[name][i]) for name in adalora.TRIPLET)
            delta = sum(v * np.outer(left[:, q], right[q]) for q, v in enumerate(values))
            close(own[layer]["kernel"], net[layer]["kernel"] + 2.0 * delta)


def test_a_budget_that_never_shrinks_is_the_form_of_singular_values(banks):
    everything = ADALORA._replace(target=3.0, orthogonality=0.0)
    scheme = adapted(ps(AGENTS), SVD._replace(schedule=everything))
    plain, net = adapted(ps(AGENTS), SVD), begun(ps(AGENTS))
    trees, alone = (s.adopt(jax.random.key(0), net) for s in (scheme, plain))
    close(own_weights(scheme, trees), own_weights(plain, alone))
    trees, optimiser = banks["adalora"], optax.adam(1e-2)
    state = {"adapters": jax.vmap(optimiser.init)(trees["adapters"])}
    for done in (1, 5, 10):
        changed, after, measures = scheme.after_update(
            trees, state, {}, When(jnp.asarray(done), 10), None
        )
        jax.tree.map(np.testing.assert_array_equal, changed["adapters"], trees["adapters"])
        assert after is state and float(measures["mean_rank"]) == 3.0
    assert float(scheme.penalty(trees, None)[0]) == 0.0


def test_the_budget_shrinks_on_a_cubic_schedule(banks):
    layers = adalora.triplets(banks["adalora"]["adapters"])
    total, final = sum(x["singular"].size for x in layers.values()), round(1.5 * 7 * AGENTS)
    for share in np.linspace(0, 1, 21):
        if share < 0.2:
            wanted = total
        elif share > 0.7:
            wanted = final
        else:
            wanted = round(final + (total - final) * (1 - (share - 0.2) / 0.5) ** 3)
        found = adalora.budget_at(jnp.float32(share), layers, ADALORA)
        assert abs(float(found) - wanted) <= (0.2 <= share <= 0.7)
    assert float(adalora.budget_at(jnp.float32(1.0), layers, ADALORA)) == final


def importance_by_hand(layers, moments, rounds=3):
    """Eqs. 7 to 10, entry by entry, with the same weights and gradients several times."""
    found = {}
    for layer, parts in layers.items():
        smooth = {}
        for name, x in parts.items():
            mean, away = np.zeros_like(x), np.zeros_like(x)
            sensitivity = np.abs(x * moments[layer][name])
            for _ in range(rounds):
                mean = 0.9 * mean + 0.1 * sensitivity
                away = 0.9 * away + 0.1 * np.abs(sensitivity - mean)
            smooth[name] = mean * away
        agents, rank = parts["singular"].shape
        found[layer] = np.zeros((agents, rank))
        for i in range(agents):
            for q in range(rank):
                found[layer][i, q] = (
                    smooth["singular"][i, q]
                    + smooth["left"][i, :, q].mean()
                    + smooth["right"][i, q].mean()
                )
    return found


def test_the_least_important_singular_values_of_all_layers_and_agents_are_pruned(banks):
    trees = banks["adalora"]
    optimiser = optax.adam(1e-2)
    state = jax.vmap(optimiser.init)(trees["adapters"])
    moments = random_banks(SCHEMES["adalora"])["adapters"]
    moments = jax.tree.map(lambda x: jnp.flip(x, -1), moments)
    state = optax.tree_utils.tree_set(state, mu=moments)
    none = jax.tree.map(jnp.zeros_like, trees["importance"])
    changed = {**trees, "importance": none}
    for _ in range(3):
        changed, _, measures = SCHEMES["adalora"].after_update(
            {**changed, "adapters": trees["adapters"]}, {"adapters": state}, {},
            When(jnp.asarray(9), 10), None,
        )  # fmt: skip
    layers = adalora.triplets(trees["adapters"])
    scores = importance_by_hand(double(layers), double(moments))
    budget = round(1.5 * 7 * AGENTS)
    limit = np.sort(np.concatenate([x.ravel() for x in scores.values()]))[-budget]
    for layer, score in scores.items():
        wanted = np.where(score >= limit, layers[layer]["singular"], 0)
        np.testing.assert_array_equal(changed["adapters"][layer]["singular"], wanted)
        for part in ("left", "right"):
            np.testing.assert_array_equal(changed["adapters"][layer][part], layers[layer][part])
    found = SCHEMES["adalora"].ranks(changed)
    assert sum(int(x.sum()) for x in found.values()) == budget
    assert len({int(x) for ranks_ in found.values() for x in ranks_}) > 1
    np.testing.assert_allclose(measures["mean_rank"], budget / (7 * AGENTS), rtol=1e-6)


def test_the_penalty_is_of_vectors_that_are_not_orthonormal(banks):
    layers = double(adalora.triplets(banks["adalora"]["adapters"]))
    distances = np.zeros((AGENTS, len(layers)))
    for j, parts in enumerate(layers.values()):
        for i in range(AGENTS):
            for columns in (parts["left"][i], parts["right"][i].T):
                gram = columns.T @ columns
                distances[i, j] += np.square(gram - np.eye(len(gram))).sum()
    loss, measures = SCHEMES["adalora"].penalty(banks["adalora"], None)
    np.testing.assert_allclose(loss, 0.5 * distances.mean(1).sum(), rtol=1e-4)
    np.testing.assert_allclose(measures["orthogonality"], distances.mean(), rtol=1e-4)


def test_at_a_lower_rank_the_strongest_are_served(banks):
    trees = banks["adalora"]
    assert SCHEMES["adalora"].served(trees) is trees
    served = SCHEMES["adalora"].served(trees, 1)
    for layer, parts in adalora.triplets(trees["adapters"]).items():
        for before, after in zip(
            np.asarray(parts["singular"]), np.asarray(served["adapters"][layer]["singular"]),
            strict=True,
        ):  # fmt: skip
            strongest = np.argmax(np.abs(before))
            assert after[strongest] == before[strongest] and np.count_nonzero(after) == 1


# --- DyLoRA ----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3])
def test_nested_ranks_by_hand(k, banks):
    trees = SCHEMES["dylora"].served(banks["dylora"], k)
    net = double(jax.tree.map(lambda x: x[0], trees["net"]))
    for i, own in enumerate(own_weights(SCHEMES["dylora"], trees)):
        for layer, parts in trees["adapters"].items():
            a, b = double(parts["a"][i]), double(parts["b"][i])
            delta = sum(np.outer(a[:, q], b[q]) for q in range(min(k, len(b))))
            close(own[layer]["kernel"], net[layer]["kernel"] + 2.0 * delta)


def test_every_rank_is_drawn_and_the_policy_is_served_at_all_of_them():
    scheme, trees = SCHEMES["dylora"], {"rank": {"k": jnp.full(1, 3.0)}}
    draw = jax.jit(
        lambda trees, key: scheme.after_update(trees, {}, {}, When(jnp.ones(()), 10), key)
    )
    drawn = []
    for key in jax.random.split(jax.random.key(0), 90):
        before = float(trees["rank"]["k"][0])
        trees, _, measures = draw(trees, key)
        assert float(measures["rank"]) == before
        drawn.append(float(trees["rank"]["k"][0]))
    counts = [drawn.count(k) for k in (1, 2, 3)]
    assert sum(counts) == 90 and min(counts) > 15
    for rank, k in ((None, 3), (2, 2), (9, 3)):
        assert float(scheme.served(trees, rank)["rank"]["k"][0]) == k


def test_columns_that_are_out_have_no_gradient(banks):
    trees = SCHEMES["dylora"].served(banks["dylora"], 1)
    found = gradients(SCHEMES["dylora"], trees, 0)["adapters"]["linear_2"]
    assert np.abs(found["a"][0, :, 0]).max() > 0 and np.abs(found["b"][0, 0]).max() > 0
    assert not np.asarray(found["a"][0, :, 1:]).any() and not np.asarray(found["b"][0, 1:]).any()


# --- a constructed problem -------------------------------------------------------------------

LAYERS, SIDE, STEPS = ("linear_1", "linear_2", "linear_3", "linear_6"), 10, 1200


def problem(planted):
    """Noisy linear regressions, one a layer and agent, to matrices of planted singular values.

    planted [agent][layer]: tuples. Returns the differences {layer: [agent, d, d]}.
    """
    rng = np.random.default_rng(0)
    made = {}
    for j, layer in enumerate(LAYERS):
        matrices = []
        for own in planted:
            left, right = (np.linalg.qr(rng.standard_normal((SIDE, SIDE)))[0] for _ in range(2))
            values = np.zeros(SIDE)
            values[: len(own[j])] = own[j]
            matrices.append(left @ np.diag(values) @ right)
        made[layer] = jnp.float32(np.stack(matrices))
    return made


@functools.lru_cache(maxsize=1)
def solve(spec, target_key):
    """Adapters of a spec after STEPS steps of Adam, each followed by what its scheme does."""
    wanted = problem(target_key)
    agents = len(target_key)
    scheme = adapted(ps(agents), spec)
    net = {
        layer: {"kernel": jnp.zeros((1, SIDE, SIDE)), "bias": jnp.zeros((1, SIDE))}
        for layer in LAYERS
    }
    role = team.Role(None, scheme, optax.adam(1e-2), SIDE)
    learner = team.start(role, scheme.adopt(jax.random.key(0), {"net": net}))

    def loss(trained, frozen, key):
        tree, _ = scheme.weights({**frozen, **trained})
        total = 0.0
        for number, layer in enumerate(LAYERS):
            x_key, noise_key = jax.random.split(jax.random.fold_in(key, number))
            x = jax.random.normal(x_key, (agents, 32, SIDE))
            noise = 0.3 * jax.random.normal(noise_key, (agents, 32, SIDE))
            error = jnp.einsum("abd,adk->abk", x, tree[layer]["kernel"] - wanted[layer]) - noise
            total += jnp.square(error).sum()
        return total

    def step(learner, inputs):
        done, key = inputs
        trained, frozen = team.split(role, learner.banks)
        gradient = jax.grad(loss)(trained, frozen, key)
        extra, _ = team.penalty(role, learner.banks, key)
        scale = 1.0 - done / STEPS
        learner, _ = team.step(role, learner, gradient, jnp.full(agents, 32.0), scale, extra)
        return team.after_update(role, learner, {}, When(done, STEPS), key)

    keys = jax.random.split(jax.random.key(1), STEPS)
    learner, measures = jax.jit(
        lambda learner: jax.lax.scan(step, learner, (jnp.arange(1.0, STEPS + 1), keys))
    )(learner)
    return scheme, learner.banks, wanted, measures


def error_of(scheme, trees, wanted):
    tree, _ = scheme.weights(trees)
    return sum(float(jnp.square(tree[x]["kernel"] - wanted[x]).sum()) for x in LAYERS)


@pytest.mark.full
def test_adalora_finds_planted_ranks_across_layers_and_agents():
    planted = (
        ((3, 2.5, 2), (), (2,), (2.5, 2)),
        ((2,), (3, 2.5, 2, 2), (), ()),
    )
    slots, total = 2 * len(LAYERS), sum(len(x) for own in planted for x in own)
    schedule = ADALORA._replace(rank=5, target=total / slots, orthogonality=0.1, beta=0.85)
    spec = LoraSpec(5, kind="svd", schedule=schedule)
    scheme, trees, wanted, measures = solve(spec, planted)
    found = scheme.ranks(trees)
    for j, layer in enumerate(LAYERS):
        assert found[layer].tolist() == [len(own[j]) for own in planted]
    assert float(measures["mean_rank"][-1]) == pytest.approx(total / slots)
    size = sum(float(jnp.square(x).sum()) for x in wanted.values())
    assert error_of(scheme, trees, wanted) < 0.02 * size


@pytest.mark.full
def test_dylora_at_a_rank_is_about_as_good_as_training_at_it_alone():
    values = (3, 2, 1.5, 1, 0.7, 0.5)
    planted = ((values,) * 4, (values,) * 4)
    schedule = DYLORA._replace(rank=4)
    scheme, trees, wanted, _ = solve(LoraSpec(4, kind="factored", schedule=schedule), planted)
    for k in (1, 2, 3, 4):
        alone, own, _, _ = solve(LoraSpec(k), planted)
        nested = error_of(scheme, scheme.served(trees, k), wanted)
        assert nested <= 1.1 * error_of(alone, own, wanted)


# --- keys ------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("sharing", ["ps_lora", "shared_lora"])
def test_schedules_are_keys(sharing, name):
    teams = trained_by_name(sharing, "sharing.rank=2", f"sharing.rank_schedule={name}")
    assert teams[0].actor.scheme.after_update is None
    assert teams[1].actor.scheme.after_update is not None


@pytest.mark.full
def test_a_critic_that_adapts_has_the_schedule_too():
    teams = trained_by_name(
        "ps_lora", "critic_sharing=ps_lora", "sharing.rank=2", "sharing.rank_schedule=adalora"
    )
    assert teams[1].critic.scheme.penalty is not None


def test_the_forms_are_of_the_kinds():
    kind = KINDS["lora"]
    own = FORMS["factored"].own(jax.random.key(0), (6, 2), 4, "paper", AGENTS)
    assert {name: x.shape[1:] for name, x in own.items()} == {"a": (6, 2), "b": (2, 2)}
    jax.tree.map(
        np.testing.assert_array_equal,
        FORMS["factored"].own(jax.random.key(0), (6, 5), 2, "peft", AGENTS),
        kind.own(jax.random.key(0), (6, 5), 2, "peft", AGENTS),
    )


REFUSED = {
    "sharing.rank_schedule=ada": "did you mean adalora",
    "sharing.rank_target=2": "sharing.rank_target=2.0 means nothing to sharing.rank_schedule=none",
    "sharing.rank_schedule=dylora sharing.rank_settle=0.5": "drop it or choose adalora",
    "sharing.rank_schedule=adalora sharing.rank=4 sharing.rank_target=5":
        "sharing.rank_target=5.0 is above sharing.rank=4",
    "sharing.rank_schedule=adalora sharing.rank_target=0": "must be above 0",
    "sharing.rank_schedule=adalora sharing.rank_warmup=0.5 sharing.rank_settle=0.5":
        "leave nothing of the phase for the budget to shrink in",
    "sharing.rank_schedule=adalora sharing.rank_warmup=1": "below 1",
    "sharing.rank_schedule=adalora sharing.rank_beta=1": "below 1",
    "sharing.rank_schedule=adalora sharing.orthogonality=-1": "at least 0",
    "sharing.rank_schedule=adalora sharing.kind=vera": "needs sharing.kind=lora or svd",
    "sharing.rank_schedule=dylora sharing.kind=dora": "needs sharing.kind=lora, and it is dora",
    "sharing.rank_schedule=adalora sharing.init=peft": "sharing.init=peft means nothing",
    "sharing.rank_schedule=adalora sharing.lr_ratio=4": "sharing.lr_ratio=4.0 means nothing",
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_refused(words):
    assert REFUSED[words] in refused("ps_lora", words.split())


@pytest.mark.parametrize("target", [0.001, 4])
def test_a_budget_that_the_layers_cannot_meet_is_refused_before_the_first_step(target):
    with pytest.raises(ConfigError) as refusal:
        trained_by_name(
            "ps_lora", "sharing.rank=4", "sharing.rank_schedule=adalora",
            "sharing.targets=[linear_7]", "env=specialisation_2", f"sharing.rank_target={target}",
        )  # fmt: skip
    assert "singular values in 2 adapters, which have 4" in str(refusal.value)
    assert "give a number between 0.5 and 2" in str(refusal.value)
