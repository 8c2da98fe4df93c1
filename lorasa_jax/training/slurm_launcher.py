"""Hydra's launcher for Slurm, of the package hydra-submitit-launcher, by which a batch survives."""

import dataclasses
from collections.abc import Sequence

import submitit
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
from submitit.core.utils import UncompletedJobError

from lorasa_jax.training.outcomes import Outcome


class Launcher(SlurmLauncher):
    """As its base, which ends with the first job that was cancelled or killed and drops the others'
    results: here such a job has an outcome that says so, and all others are waited for.
    """

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        common = {field.name for field in dataclasses.fields(BaseQueueConf)}
        options = {
            name if name in common else f"slurm_{name}": value
            for name, value in self.params.items()
        }
        executor = submitit.AutoExecutor(
            folder=options.pop("submitit_folder"),
            cluster="slurm",
            slurm_max_num_timeout=options.pop("slurm_max_num_timeout"),
        )
        executor.update_parameters(**options)
        state = Singleton.get_state()
        arguments = [
            (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", state)
            for number, overrides in enumerate(job_overrides, initial_job_idx)
        ]
        jobs = executor.map_array(self, *zip(*arguments, strict=True))
        print(f"Slurm: array {jobs[0].job_id.partition('_')[0]} of {len(jobs)} jobs", flush=True)
        pairs = zip(jobs, job_overrides, strict=True)
        return [_return(job, overrides) for job, overrides in pairs]


def install() -> None:
    """Makes this the class of `hydra/launcher=submitit_slurm`.

    Hydra takes launchers from the package hydra_plugins alone, by the names that it found there.
    """
    name = f"{SlurmLauncher.__module__}.{SlurmLauncher.__qualname__}"
    Plugins.instance().class_name_to_class[name] = Launcher


def _return(job, overrides):
    try:
        return job.results()[0]
    except UncompletedJobError:
        message = "cancelled or killed; the same command continues it"
        if job.paths.result_pickle.exists():
            message = f"failed; see {job.paths.stderr}"
        outcome = Outcome(f"job {job.job_id} ({' '.join(overrides)})", 1, message)
        return JobReturn(status=JobStatus.COMPLETED, _return_value=outcome)
