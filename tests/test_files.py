import pytest

from lorasa_jax.errors import ConfigError
from lorasa_jax.files import new_folder, replacing, write_atomically


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_the_place_of_the_part_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".a.part.json").symlink_to(victim)
    write_atomically(folder / "a.json", "new")
    assert victim.read_text() == "mine"
    assert (folder / "a.json").read_text() == "new" and not (folder / "a.json").is_symlink()


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "made"
    with pytest.raises(RuntimeError), new_folder(folder) as part:
        (part / "x").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(folder) as part:
        (part / "x").write_text("whole")
    assert (folder / "x").read_text() == "whole"
    with pytest.raises(ConfigError, match="exists already"), new_folder(folder):
        pass
