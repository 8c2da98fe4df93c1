"""What Figure 4 and Tables 10-13 vary: the switch, the rank, the layers that have adapters."""

from experiments import cells, pictures, training
from experiments.cells import Cell, Request
from lorasa_jax.errors import ConfigError
from lorasa_jax.values import whole_number

# The paper's switches as shares of its 12M steps.
SHARES = {"smac_MMM2": (1 / 12, 3 / 12, 5 / 12, 7 / 12)}
SHARES_ELSEWHERE = (2 / 12, 4 / 12, 6 / 12, 8 / 12)
RANKS = "4,8,16,64"
PLACEMENTS = {
    "first": "[linear_1,linear_2,linear_3]",
    "recurrent": "[gru_x_4,gru_h_5]",
    "last": "[linear_6,linear_7]",
    "all": None,
}


def by_switch(request: Request, cell: Cell) -> tuple[Cell, ...]:
    """`switches=` of the command line, by default the paper's, scaled to the run's length."""
    given = request.options["switches"]
    if not given:
        return training.switches(request, cell, SHARES.get(cell.env, SHARES_ELSEWHERE))
    steps = [whole_number(step, "switches") for step in given.split(",")]
    return cells.varied(cell, *(f"switch_at={step}" for step in steps))


def by_rank(request: Request, cell: Cell) -> tuple[Cell, ...]:
    """`ranks=` of the command line."""
    ranks = [whole_number(rank, "ranks") for rank in request.options["ranks"].split(",")]
    return cells.varied(cell, *(f"sharing.rank={rank}" for rank in ranks))


def by_placement(request: Request, cell: Cell) -> tuple[Cell, ...]:
    """`placements=` of the command line, names of PLACEMENTS; `all` is the cell as it is."""
    chosen = []
    for name in request.options["placements"].split(","):
        if name not in PLACEMENTS:
            raise ConfigError(
                f"placements={name} is not known; choose from {', '.join(PLACEMENTS)}."
            )
        layers = PLACEMENTS[name]
        chosen += [cell] if layers is None else cells.varied(cell, f"sharing.targets={layers}")
    return tuple(chosen)


def baseline(cell: Cell) -> Cell:
    """Full sharing all the way, which the ablations are compared with."""
    return Cell(cell.env, cell.algo, "ps")


def name_of(cell: Cell) -> str:
    """What tells a varied cell apart, in short."""
    if not cell.keys:
        return "PS" if cell.sharing == "ps" else "all layers"
    key, _, value = cell.keys[-1].partition("=")
    if key == "switch_at":
        return f"at {pictures.steps(int(value))}"
    if key == "sharing.rank":
        return f"rank {value}"
    return next(name for name, layers in PLACEMENTS.items() if layers == value) + " layers"
