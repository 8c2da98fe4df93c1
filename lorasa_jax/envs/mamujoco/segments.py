"""MaMuJoCo's robots of any length, made with MjSpec: bodies, masses and motors of its templates."""

import mujoco


def ant(count: int) -> mujoco.MjModel:
    """`count` segments of two legs in a row, 1 m apart and rigidly joined; the first one leads."""
    spec = _spec("ant")
    spec.default.joint.armature = 1.0
    spec.default.joint.damping = [1.0, 0.0, 0.0]
    spec.default.joint.limited = mujoco.mjtLimited.mjLIMITED_TRUE
    _geoms(spec, density=5.0, condim=3, friction=[1.0, 0.5, 0.5], margin=0.01)
    spec.worldbody.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[40, 40, 40], conaffinity=1
    )
    body = spec.worldbody.add_body(name="torso_0", pos=[0, 0, 0.75])
    body.add_joint(
        name="root",
        type=mujoco.mjtJoint.mjJNT_FREE,
        armature=0.0,
        damping=[0.0, 0.0, 0.0],
        limited=mujoco.mjtLimited.mjLIMITED_FALSE,
        margin=0.01,
    )
    _leg(body, "1_0", hip=[0.2, 0.2, 0], reach=[1, 1], axis=[-1, 1, 0], bend=[30, 70])
    _leg(body, "2_0", hip=[0.2, -0.2, 0], reach=[1, -1], axis=[1, 1, 0], bend=[30, 70])
    for i in range(1, count):
        body = body.add_body(name=f"torso_{i}", pos=[-1, 0, 0])
        _capsule(body, [1, 0, 0], [0, 0, 0], 0.1, density=100.0)
        _leg(body, f"1_{i}", hip=[0, 0.2, 0], reach=[-1, 1], axis=[1, 1, 0], bend=[-70, -30])
        _leg(body, f"2_{i}", hip=[0, -0.2, 0], reach=[-1, -1], axis=[-1, 1, 0], bend=[-70, -30])
    for i in range(count):
        for joint in ("hip1", "ankle1", "hip2", "ankle2"):
            _motor(spec, f"{joint}_{i}")
    return spec.compile()


def swimmer(count: int) -> mujoco.MjModel:
    """A head and `count` links of 1 m behind it; driven joints rot0 ... , the axes alternate."""
    spec = _spec("swimmer")
    spec.option.density, spec.option.viscosity = 4000.0, 0.1
    spec.default.joint.armature = 0.1
    _geoms(spec, density=1000.0, condim=1, contype=0)
    spec.worldbody.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[40, 40, 0.1],
        pos=[0, 0, -0.1],
        condim=3,
    )
    body = spec.worldbody.add_body(name="torso")
    _capsule(body, [1.5, 0, 0], [0.5, 0, 0], 0.1)
    slide = mujoco.mjtJoint.mjJNT_SLIDE
    body.add_joint(name="slider1", type=slide, axis=[1, 0, 0])
    body.add_joint(name="slider2", type=slide, axis=[0, 1, 0])
    body.add_joint(name="rot", axis=[0, 0, 1])
    for i in range(count):
        last = i == count - 1
        turn = 1 if last or i == 0 or i % 2 else -1
        body = body.add_body(name=f"link{i}", pos=[-1 if i else 0.5, 0, 0])
        _capsule(body, [0, 0, 0], [-1, 0, 0], 0.1)
        body.add_joint(
            name=f"rot{i}",
            axis=[0, 0, turn],
            range=[-100, 100],
            limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        )
    for i in range(count):
        _motor(spec, f"rot{i}")
    return spec.compile()


def _spec(name):
    spec = mujoco.MjSpec()
    spec.modelname = name
    spec.compiler.degree = True
    spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_TRUE
    spec.option.timestep = 0.01
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_RK4
    return spec


def _geoms(spec, **values):
    """Robots touch the floor and nothing else: only it takes part in collisions with all."""
    for name, value in {"conaffinity": 0, **values}.items():
        setattr(spec.default.geom, name, value)


def _capsule(body, start, end, radius, **values):
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=[*start, *end], size=[radius, 0, 0], **values
    )


def _leg(torso, suffix, hip, reach, axis, bend):
    """A fixed stub to the hip, the upper leg, and the lower one; reach are the signs of x, y."""
    x, y = reach
    stub = torso.add_body()
    _capsule(stub, [0, 0, 0], hip, 0.08)
    upper = stub.add_body(pos=hip)
    upper.add_joint(name=f"hip{suffix}", axis=[0, 0, 1], range=[-30, 30])
    _capsule(upper, [0, 0, 0], [0.2 * x, 0.2 * y, 0], 0.08)
    lower = upper.add_body(pos=[0.2 * x, 0.2 * y, 0])
    lower.add_joint(name=f"ankle{suffix}", axis=axis, range=bend)
    _capsule(lower, [0, 0, 0], [0.4 * x, 0.4 * y, 0], 0.08)


def _motor(spec, joint):
    spec.add_actuator(
        target=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gear=[150.0, 0, 0, 0, 0, 0],
        ctrllimited=mujoco.mjtLimited.mjLIMITED_TRUE,
        ctrlrange=[-1.0, 1.0],
    )
