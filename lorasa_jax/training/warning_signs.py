"""What a run's own numbers say is going wrong, in a sentence for each sign of it."""

COLLAPSED, MOVED = 0.02, 0.05  # standard deviation of actions; KL divergence of an update
STAYS = 2  # evaluations in a row whose KL is above


def found(rows: list[dict]) -> dict[str, str]:
    """{sign: sentence} of a run's metrics so far, oldest row first.

    `spread`: a seed's actions hardly vary (mean standard deviation below 0.02), so that it no
    longer explores. `kl`: a seed's policy moves by more than 0.05 an update, evaluation after
    evaluation, so that PPO's clip no longer holds it. `legal`: the environment left agents that act
    without any legal action. `return`: an episode had a return that is not finite.
    """
    signs: dict[str, str] = {}
    in_a_row: dict[int, int] = {}
    for row in rows:
        seed, step = row["seed"], f"{row['env_steps']:,}"
        spread, kl = row.get("action_std"), row.get("approx_kl")
        if spread is not None and spread < COLLAPSED:
            signs.setdefault(
                "spread",
                f"step {step}: actions of seed {seed} have a mean standard deviation of "
                f"{spread:.3f} and explore hardly anything any more; network.log_std=vector, "
                "network.std_min or algo.entropy_coef keep it up.",
            )
        bad = row.get("eval_not_finite")
        if bad:
            signs.setdefault(
                "return",
                f"step {step}: {bad} of {row['eval_episodes']} evaluated episodes of seed {seed} "
                "had a return that is not finite; they are left out of its mean, and rules for "
                "the switch skip evaluations that have nothing else.",
            )
        stuck = row.get("no_legal_action")
        if stuck is not None and stuck > 0:
            signs.setdefault(
                "legal",
                f"step {step}: in {stuck:.2%} of what active agents of seed {seed} played, the "
                "environment declared no action legal, and one was drawn all the same; its "
                "TimeStep.legal or TimeStep.active is wrong there.",
            )
        in_a_row[seed] = in_a_row.get(seed, 0) + 1 if kl is not None and kl > MOVED else 0
        if in_a_row[seed] >= STAYS:
            signs.setdefault(
                "kl",
                f"step {step}: updates of seed {seed} keep moving its policy by a KL divergence of "
                f"{kl:.2f}, where 0.005 to 0.02 is usual; algo.target_kl=0.02 or lower learning "
                "rates hold it.",
            )
    return signs
