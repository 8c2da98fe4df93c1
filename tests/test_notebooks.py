"""The notebooks at small size, in a folder of their own, in a kernel of this interpreter."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = ("quick_start", "your_own", "specialisation")


class ThisPython(KernelSpecManager):
    """The one kernel: whatever kernels the user has, notebooks run in this interpreter."""

    def get_kernel_spec(self, kernel_name):
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name=kernel_name, language="python")


class Executed:
    """A notebook's outputs: what it printed, its figures, and the folder it ran in."""

    def __init__(self, notebook, folder):
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        shown = [output.data for output in outputs if output.output_type == "display_data"]
        self.folder = folder
        self.figures = sum("image/png" in data for data in shown)
        self.pages = "".join(data.get("text/html", "") for data in shown)
        streams = [output for output in outputs if output.output_type == "stream"]
        self.printed = "".join(output.text for output in streams if output.name == "stdout")
        self.complaints = "".join(output.text for output in streams if output.name == "stderr")

    def number(self, words):
        """The number that follows `words` in what was printed."""
        found = re.search(rf"{words}\s*(-?[\d,]+(?:\.\d+)?)", self.printed)
        assert found, f"{words} is not in: {self.printed}"
        return float(found[1].replace(",", ""))


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def execute(tmp_path_factory):
    """Runs a notebook; a cell that fails raises its error."""

    def execute(name):
        folder, home = tmp_path_factory.mktemp(name), tmp_path_factory.mktemp("home")
        notebook = read(name)
        manager = AsyncKernelManager(kernel_spec_manager=ThisPython())
        client = NotebookClient(
            notebook, km=manager, timeout=600, resources={"metadata": {"path": str(folder)}}
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LORASA_SMALL", "1")
            patch.setenv("IPYTHONDIR", str(home))
            patch.setenv("JUPYTER_RUNTIME_DIR", str(home))
            client.execute(cleanup_kc=True)
        return Executed(notebook, folder)

    return execute


@pytest.mark.long
def test_quick_start_trains_shows_and_exports(execute):
    done = execute("quick_start")
    (out,) = done.folder.glob("runs/ant_4x2-mappo-ps_lora-*")
    assert done.figures == 1
    assert 0 < done.number("greedy return") < 3000
    assert "banks: adapters, net" in done.printed
    assert "(4, 35, 8)" in done.printed
    assert (out / "summary.json").exists()
    assert "srcdoc=" in done.pages and (out / "episode.html").exists()
    drawn = (out / "episode.mp4").exists() and "<video" in done.pages
    assert drawn or "draw" in done.printed
    stored = {path.name for path in (out / "exported").iterdir()}
    assert {"policy.json", "policy.py", "agent_0.safetensors"} <= stored
    assert "actions: (4, 2)" in done.printed
    assert done.complaints == ""


@pytest.mark.long
def test_your_own_trains_its_environment_under_its_way_of_sharing(execute):
    done = execute("your_own")
    assert done.figures == 2
    assert done.number("half_shared:") < done.number("ps_lora:")
    for scheme in ("ps_lora", "half_shared"):
        assert len(list(done.folder.glob(f"runs/turned_carts-mappo-{scheme}-*/summary.json"))) == 1
        assert -45 < done.number(f"{scheme}: return") < 0
    assert "carts: 6" in done.printed
    assert {path.name for path in done.folder.glob("*.py")} == {
        "half_shared.py", "turned_carts.py"
    }  # fmt: skip
    assert done.complaints == ""


@pytest.mark.long
def test_specialisation_draws_every_measure(execute):
    done = execute("specialisation")
    assert done.figures == 6
    assert 0 < done.number("System Neural Diversity:") <= 1
    assert 0 < done.number("social entropy:") <= 2
    assert 0.25 <= done.number("own return:") <= 1.0
    assert done.complaints == ""


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebooks_hold_no_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            assert cell.metadata == {}


def test_every_notebook_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)
