import resource
import time

from lorasa_jax import config as configuration
from lorasa_jax import evaluate, run

TINY = [
    "sharing=ps", "algo.num_envs=2", "algo.rollout_length=10", "algo.chunk_length=10", "algo.epochs=1",
    "network.hidden=8", "network.kind=ff", "total_steps=20", "eval_every=1", "eval_episodes=2",
]  # fmt: skip
def cpu(): 
    r=resource.getrusage(resource.RUSAGE_SELF); return r.ru_utime+r.ru_stime
def test_a(tmp_path):
    for env, opts in (("smac_2s3z",["env.max_steps=12"]),("smax_3m",["env.max_steps=12"]),("halfcheetah_2x3",[])):
        t,c=time.time(),cpu()
        out=tmp_path/env
        run.execute(configuration.load([*TINY,f"env={env}",*opts,f"out={out}"]))
        print(env,"train",time.time()-t,cpu()-c); t,c=time.time(),cpu()
        evaluate.main([f"out={out}","render=true","format=gif","episodes=2"])
        print(env,"eval",time.time()-t,cpu()-c)
        print(sorted(out.iterdir()))
