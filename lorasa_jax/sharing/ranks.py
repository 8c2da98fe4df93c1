"""Ranks that change while adapters train: the keys of AdaLoRA's budget and DyLoRA's nested ranks.

`sharing.rank_schedule` chooses; shapes stay those of `sharing.rank`, and what a smaller rank leaves
out is zero.
"""

from dataclasses import dataclass
from typing import Any

from lorasa_jax.errors import ConfigError
from lorasa_jax.keys import default, key, keys
from lorasa_jax.sharing.adalora import adalora
from lorasa_jax.sharing.dylora import dylora
from lorasa_jax.sharing.scheme import Scheme
from lorasa_jax.sharing.spec import LoraSpec, Schedule
from lorasa_jax.sharing.variants import KindKeys


@dataclass(frozen=True)
class RankKeys(KindKeys):
    """How adapters' ranks change while they train; see SCHEDULES."""

    rank_schedule: str = key(
        "none", "adalora: layers and agents compete for ranks; dylora: nested ranks, any of which "
        "serves", choices=("none", "adalora", "dylora"), later=True,
    )  # fmt: skip
    rank_target: float | None = key(
        None, "adalora's mean rank over layers and agents in the end; null: half of rank", above=0,
        later=True,
    )  # fmt: skip
    rank_warmup: float = key(
        0.1, "share of the phase before adalora's budget shrinks", least=0, below=1, later=True
    )
    rank_settle: float = key(
        0.3, "share of the phase after adalora's budget has shrunk", least=0, below=1, later=True
    )
    rank_beta: float = key(
        0.85, "decay of adalora's running means of importance", least=0, below=1, later=True
    )
    orthogonality: float = key(
        0.1, "weight of adalora's penalty on singular vectors", least=0, later=True
    )

    @property
    def form(self) -> str:
        """What adapters are (variants.FORMS), by kind and schedule."""
        return _FORMS.get(self.rank_schedule, {}).get(self.kind, self.kind)

    @property
    def schedule(self) -> Schedule | None:
        """How the ranks of complete keys change; None where they do not."""
        if self.rank_schedule == "none":
            return None
        rank = max([_rank(self), *(getattr(self, "rank_pattern", None) or {}).values()])
        target = rank / 2 if self.rank_target is None else self.rank_target
        return Schedule(
            self.rank_schedule, rank, target, self.rank_warmup, self.rank_settle, self.rank_beta,
            self.orthogonality,
        )  # fmt: skip

    def check_schedule(self) -> None:
        """Refuses keys that mean nothing to the schedule, and budgets that cannot be met.

        Raises:
          ConfigError: with one sentence.
        """
        if self.rank_schedule != "adalora":
            for name, field in keys(RankKeys).items():
                own = name not in (*keys(KindKeys), "rank_schedule")
                if own and getattr(self, name) != default(field):
                    raise ConfigError(
                        f"sharing.{name}={getattr(self, name)} means nothing to "
                        f"sharing.rank_schedule={self.rank_schedule}; drop it or choose adalora."
                    )
        kinds = _FORMS.get(self.rank_schedule)
        if kinds is not None and self.kind not in kinds:
            raise ConfigError(
                f"sharing.rank_schedule={self.rank_schedule} needs sharing.kind="
                f"{' or '.join(kinds)}, and it is {self.kind}."
            )
        for name in ("init", "lr_ratio"):
            if self.form == "svd" and getattr(self, name) != default(keys(KindKeys)[name]):
                raise ConfigError(
                    f"sharing.{name}={getattr(self, name)} means nothing to adapters P diag(l) Q, "
                    "which have no A and B; drop it."
                )
        if self.rank_warmup + self.rank_settle >= 1:
            raise ConfigError(
                f"sharing.rank_warmup={self.rank_warmup} and sharing.rank_settle="
                f"{self.rank_settle} leave nothing of the phase for the budget to shrink in; give "
                "numbers whose sum is below 1."
            )
        schedule = self.schedule
        if schedule is not None and schedule.target > schedule.rank:
            raise ConfigError(
                f"sharing.rank_target={self.rank_target} is above sharing.rank={schedule.rank}, "
                "from which it is to be reached; give less."
            )


# {schedule: {kind that it is for: what adapters then are}}
_FORMS = {"adalora": {"lora": "svd", "svd": "svd"}, "dylora": {"lora": "factored"}}


def _rank(keys_: Any) -> int:
    return keys_.rank


def scheduled(scheme: Scheme, spec: LoraSpec) -> Scheme:
    """A scheme of a bank `adapters` with the changing ranks of a LoraSpec, if it has such."""
    return scheme if spec.schedule is None else SCHEDULES[spec.schedule.name](scheme, spec.schedule)


SCHEDULES = {"adalora": adalora, "dylora": dylora}
