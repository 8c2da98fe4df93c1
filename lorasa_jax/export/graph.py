"""One agent's step as an ONNX graph of elementary operations, written node by node."""

from pathlib import Path

import numpy as np

from lorasa_jax.export.policy import NORMALISE, OBSERVATION_CLIP
from lorasa_jax.export.source import agent_trees, file_stems, has_masks, named, package
from lorasa_jax.learn.finished import Policy
from lorasa_jax.policy.networks import EPSILON, HEAD

# The oldest ones that know LayerNormalization, so that old runtimes load the files.
OPSET, IR_VERSION = 17, 8
USE = (
    "onnxruntime.InferenceSession(FILE).run(None, {obs [batch, observation], carry [batch, carry], "
    "first [batch] bool, and for discrete actions legal [batch, actions] bool}) "
    "-> action, the network's outputs, next_carry"
)


def write(folder: Path, policy: Policy) -> list[dict]:
    """Writes <agent>.onnx; returns each agent's {file}."""
    onnx = package("onnx", "onnx")
    agents = []
    for stem, tree in zip(file_stems(policy), agent_trees(policy), strict=True):
        file = f"{stem}.onnx"
        (folder / file).write_bytes(model(onnx, policy, named(tree)).SerializeToString())
        agents.append({"file": file})
    return agents


class Graph:
    """Nodes and constants of a graph under construction; values are known by their names."""

    def __init__(self, onnx, weights: dict[str, np.ndarray]):
        self.onnx, self.weights = onnx, weights
        self.nodes, self.constants = [], []
        for name, x in weights.items():
            self.constant(name if "." in name else f"{name}.vector", x)

    def constant(self, name: str, value) -> str:
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes) -> str:
        """Adds a node of one output, and returns that."""
        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def split(self, x: str, parts: int) -> list[str]:
        """Equal parts along the last axis."""
        names = [f"Split_{len(self.nodes)}_{i}" for i in range(parts)]
        self.nodes.append(self.onnx.helper.make_node("Split", [x], names, axis=-1))
        return names

    def linear(self, x: str, layer: str) -> str:
        return self.op("Gemm", x, f"{layer}.kernel", f"{layer}.bias")

    def normed(self, x: str, number: int) -> str:
        if f"norm_{number}.scale" not in self.weights:  # a network without LayerNorms
            return x
        affine = f"norm_{number}.scale", f"norm_{number}.bias"
        return self.op("LayerNormalization", x, *affine, axis=-1, epsilon=EPSILON)


def model(onnx, policy: Policy, weights: dict[str, np.ndarray]):
    """The ONNX model of one agent: obs, carry, first[, legal] -> action, outputs, next_carry."""
    team, masks = policy.team, has_masks(policy)
    network, distribution = team.actor.network, team.distribution
    graph = Graph(onnx, weights)
    outputs = _network(graph, network)
    if masks:
        graph.constant("never", np.float32(-1e10))
        legal = graph.op("Where", "legal", "logits", "never")
        graph.op("ArgMax", legal, axis=-1, keepdims=0, name="action")
    else:
        graph.op("Tanh", "mean", name="action")

    float_type, bool_type, int_type = (
        getattr(onnx.TensorProto, kind) for kind in ("FLOAT", "BOOL", "INT64")
    )

    def value(name, kind, *shape):
        return onnx.helper.make_tensor_value_info(name, kind, ["batch", *shape])

    carry = network.carry_size
    inputs = [
        value("obs", float_type, team.env.observation_size),
        value("carry", float_type, carry),
        value("first", bool_type),
    ]
    if masks:
        inputs.append(value("legal", bool_type, distribution.n))
        action = value("action", int_type)
    else:
        action = value("action", float_type, distribution.size)
    results = [value(name, float_type, size) for name, size in outputs.items()]
    results = [action, *results, value("next_carry", float_type, carry)]
    onnx_model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "policy", inputs, results, graph.constants),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="lorasa_jax",
    )
    onnx.checker.check_model(onnx_model, full_check=True)
    return onnx_model


def _network(graph, network):
    """Nodes from obs, carry and first to next_carry and the outputs {name: size}."""
    x = "obs"
    if f"{NORMALISE}.mean" in graph.weights:
        centred = graph.op("Sub", x, f"{NORMALISE}.mean")
        graph.constant("lowest", np.float32(-OBSERVATION_CLIP))
        graph.constant("highest", np.float32(OBSERVATION_CLIP))
        x = graph.op("Clip", graph.op("Mul", centred, f"{NORMALISE}.scale"), "lowest", "highest")
    for i in range(1, network.depth + 1):
        x = graph.op("Relu", graph.linear(graph.normed(x, i), f"linear_{i}"))
    if network.kind in CELLS:
        graph.constant("last", np.array([1]))
        graph.constant("zero", np.float32(0))
        gates = graph.linear(graph.normed(x, 4), f"{network.kind}_x_4")
        begins = graph.op("Unsqueeze", "first", "last")
        carry = graph.op("Where", begins, "zero", "carry")
        x = CELLS[network.kind](graph, carry, gates, f"{network.kind}_h_5")
    else:
        graph.op("Identity", "carry", name="next_carry")
    x = graph.op("Relu", graph.linear(graph.normed(x, 6), "linear_6"))
    x = graph.normed(x, 7)
    sizes = {}
    for i, (output, (size, *_)) in enumerate(network.heads.items()):
        layer = f"{HEAD}_{output}" if i else HEAD
        graph.op("Gemm", x, f"{layer}.kernel", f"{layer}.bias", name=output)
        sizes[output] = size
    for output, (size, _) in network.vectors.items():  # one for each sample, as wide as the mean
        graph.op("Expand", f"{output}.vector", graph.op("Shape", "mean"), name=output)
        sizes[output] = size
    return sizes


def _gru(graph, hidden, gates, layer):
    reset_x, update_x, new_x = graph.split(gates, 3)
    reset_h, update_h, new_h = graph.split(graph.linear(hidden, layer), 3)
    reset = graph.op("Sigmoid", graph.op("Add", reset_x, reset_h))
    update = graph.op("Sigmoid", graph.op("Add", update_x, update_h))
    new = graph.op("Tanh", graph.op("Add", new_x, graph.op("Mul", reset, new_h)))
    # (1 - update) new + update hidden
    step = graph.op("Mul", update, graph.op("Sub", hidden, new))
    return graph.op("Add", new, step, name="next_carry")


def _lstm(graph, carry, gates, layer):
    hidden, cell = graph.split(carry, 2)
    sums = graph.op("Add", gates, graph.linear(hidden, layer))
    enter, forget, new, leave = graph.split(sums, 4)
    kept = graph.op("Mul", graph.op("Sigmoid", forget), cell)
    added = graph.op("Mul", graph.op("Sigmoid", enter), graph.op("Tanh", new))
    cell = graph.op("Add", kept, added)
    hidden = graph.op("Mul", graph.op("Sigmoid", leave), graph.op("Tanh", cell))
    graph.op("Concat", hidden, cell, axis=-1, name="next_carry")
    return hidden


CELLS = {"gru": _gru, "lstm": _lstm}
