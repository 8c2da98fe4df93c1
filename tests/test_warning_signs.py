from lorasa_jax.training.warning_signs import found


def row(step, seed=0, **values):
    return {"env_steps": step, "seed": seed, "action_std": 0.3, "approx_kl": 0.01, **values}


def test_a_healthy_run_shows_no_signs():
    rows = [row(0, action_std=None, approx_kl=None), row(1), row(2, approx_kl=0.2), row(3)]
    assert found(rows) == {}
    assert found([{"env_steps": 0, "seed": 0, "approx_kl": None}]) == {}  # discrete actions


def test_a_collapsed_spread_is_told_where_it_began():
    signs = found([row(0), row(4000, 1, action_std=0.015), row(8000, action_std=0.01)])
    assert list(signs) == ["spread"]
    assert "step 4,000: actions of seed 1" in signs["spread"] and "0.015" in signs["spread"]


def test_agents_without_a_legal_action_are_told_once():
    rows = [row(0), row(100, no_legal_action=0.0), row(200, 1, no_legal_action=0.125)]
    assert found(rows[:2]) == {}
    signs = found([*rows, row(300, 1, no_legal_action=0.5)])
    assert list(signs) == ["legal"]
    assert "step 200: in 12.50% of what active agents of seed 1" in signs["legal"]


def test_kl_must_stay_above():
    high = {"approx_kl": 0.06}
    assert found([row(1, **high), row(2), row(3, **high), row(3, 1, **high)]) == {}
    signs = found([row(1, **high), row(1, 1), row(2, **high), row(2, 1)])
    assert list(signs) == ["kl"] and "step 2: updates of seed 0" in signs["kl"]
