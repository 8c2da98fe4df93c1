"""The same panels as a report on Weights & Biases, for runs that were trained with logger=wandb."""

# wandb_workspaces re-exports its names without saying so (`from ... import x as x`).
# pyright: reportPrivateImportUsage=false

import os
from pathlib import Path
from typing import Any

import wandb

from lorasa_jax.errors import ConfigError
from lorasa_jax.report.learning import SCORES
from lorasa_jax.report.page import TITLES
from lorasa_jax.report.story import Story
from lorasa_jax.training import runs
from lorasa_jax.training.identity import kept_identity
from lorasa_jax.training.wandb_logger import _logged_in

PAGE = "report"  # the key under which the page is logged
LOSSES = ("train_return", "entropy", "policy_loss", "value_loss")
COLUMNS, ROWS = 24, 8  # a report's grid is 24 wide


def require_account() -> None:
    """Refuses where there is no account to save a report with.

    Raises:
      ConfigError: W&B is offline, has no key, or its package for reports is not installed.
    """
    mode = os.environ.get("WANDB_MODE") or "online"
    if mode != "online":
        raise ConfigError(f"wandb=true needs Weights & Biases online; unset WANDB_MODE={mode}.")
    if not (os.environ.get("WANDB_API_KEY") or _logged_in()):
        raise ConfigError("wandb=true needs an account; give `wandb login`, or drop wandb=true.")
    try:
        import wandb_workspaces.reports.v2  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            'wandb=true needs wandb-workspaces; install it with pip install -e ".[wandb-report]".'
        ) from error


def require_logged(folders: tuple[str, ...]) -> None:
    """Refuses runs that were not logged to W&B.

    Raises:
      ConfigError: names the first such run.
    """
    for folder in folders:
        logger = runs.configured(folder).logger["name"]
        if logger != "wandb":
            raise ConfigError(f"{folder} has logger={logger}; train it with logger=wandb.")


def group(story: Story) -> str:
    """The group that a run's seeds have on W&B."""
    kept = kept_identity(story.out)
    name = Path(story.config["out"]).name if kept is None else kept.name
    return story.config["logger"]["group"] or name


def runset(story: Story, entity: str):
    """All seeds of one run: those of its group that have its tags."""
    import wandb_workspaces.reports.v2 as wr

    summary = story.summary
    tags = [summary["env"], summary["algo"], summary["sharing"]]
    conditions = [f"Metric('Group') == {group(story)!r}"]
    conditions += [f"Metric('Tags') in [{tag!r}]" for tag in tags]
    return wr.Runset(
        entity=story.config["logger"]["entity"] or entity,
        project=story.config["logger"]["project"],
        name=story.name,
        filters=" and ".join(conditions),
        groupby=["Group"],
    )


def board(stories: list[Story], entity: str, project: str) -> Any:
    """The report as an object of wandb_workspaces, not saved; nothing asks the network.

    A heading, then line plots of every run's seeds (grouped, the median with least and most), and
    the page itself, which `publish` logs under PAGE.
    """
    import wandb_workspaces.reports.v2 as wr

    runsets = [runset(story, entity) for story in stories]
    scores = [score for score in SCORES if any(score in story.curves for story in stories)]
    titles = {**TITLES, **{name: name.replace("_", " ").capitalize() for name in LOSSES}}

    def lines(names):
        return wr.PanelGrid(
            runsets=runsets,
            panels=[_line(wr, titles[name], name, i) for i, name in enumerate(names)],
        )

    page_panel = wr.MediaBrowser(
        title="The page", media_keys=[PAGE], num_columns=1,
        layout=wr.Layout(x=0, y=0, w=COLUMNS, h=4 * ROWS),
    )  # fmt: skip
    pages = wr.Runset(
        entity=entity, project=project, name="pages", filters="Metric('JobType') == 'report'"
    )
    return wr.Report(
        entity=entity,
        project=project,
        title=" and ".join(story.name for story in stories),
        description="Results, learning curves, and who the agents became.",
        blocks=[
            wr.H1("Learning curves"), lines(scores),
            wr.H1("Losses and entropy"), lines(LOSSES),
            wr.H1("Who the agents became"), *_facts(wr, stories),
            wr.PanelGrid(runsets=[pages], panels=[page_panel]),
        ],
    )  # fmt: skip


def _line(wr, title, name, i):
    half = COLUMNS // 2
    return wr.LinePlot(
        title=title, x="env_steps", y=[name], title_x="environment steps",
        groupby_aggfunc="median", groupby_rangefunc="minmax",
        layout=wr.Layout(x=half * (i % 2), y=ROWS * (i // 2), w=half, h=ROWS),
    )  # fmt: skip


def _facts(wr, stories):
    """What the numbers behind the panels come to, a line a run."""
    for story in stories:
        final = story.summary["eval_return"]
        parts = [f"{story.name}: return {'-' if final is None else format(final, ',.5g')}"]
        if "win_rate" in story.summary:
            parts.append(f"win rate {story.summary['win_rate']:.1%}")
        if story.snd is not None:
            parts.append(f"System Neural Diversity {story.snd:.3g}")
        parts += [f"{phase} from step {step:,}" for step, phase in story.phases]
        yield wr.P(", ".join(parts) + ".")


def publish(stories: list[Story], page: str) -> str:
    """Uploads the page as a run of job type `report`, saves the report; returns its address.

    Raises:
      ConfigError: W&B refused.
    """
    place = stories[0].config["logger"]
    try:
        with wandb.init(
            project=place["project"], entity=place["entity"], job_type="report",
            group=group(stories[0]), name=f"report of {stories[0].name}", reinit="create_new",
        ) as run:  # fmt: skip
            run.log({PAGE: wandb.Html(page, data_is_not_path=True)})
            entity = run.entity
        return board(stories, entity, place["project"]).save().url
    except Exception as error:  # the library raises bare ones too
        text = " ".join(str(error).split())[:200]
        raise ConfigError(f"Weights & Biases refused the report ({text}); try again.") from error
