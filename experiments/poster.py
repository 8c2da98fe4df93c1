"""A few seconds of a policy of the package as a small GIF, such as the README's first picture.

    python -m experiments.poster [NAME] [first=100] [count=80] [seed=0] [to=docs/images/NAME.gif]

Plays an episode, films `count` of its steps from the `first` on, and halves the pictures.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from PIL import Image, ImageSequence

import lorasa_jax
from lorasa_jax import demo, episodes, keys
from lorasa_jax.envs.mamujoco.replay.scene import palette
from lorasa_jax.envs.video import SIZE, write_video


@dataclass(frozen=True)
class Options:
    """Which steps of which policy's episode are shown, and where."""

    name: str = keys.key("ant_4x2", "a policy of the package")
    first: int = keys.key(100, "the first step that is shown", least=0)
    count: int = keys.key(80, "how many steps are shown", least=2)
    seed: int = keys.key(0, "of the episode", least=0)
    to: str | None = keys.key(None, "the picture; null: docs/images/NAME.gif")


def poster(options: Options) -> Path:
    """Writes the picture; returns its path."""
    policy = lorasa_jax.load(demo.folder(options.name))
    states, rewards = episodes.episode(policy, options.seed)
    end = options.first + options.count
    states = jax.tree.map(lambda x: x[options.first : end], states)
    to = Path(options.to or f"docs/images/{options.name}.gif")
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.gif"
        title = episodes.title(policy)
        shown = rewards[options.first : end - 1]
        episodes.pictured(policy).film(states, film, rewards=shown, title=title)
        return halved(film, to, len(policy.env().agents))


def halved(film: Path, to: Path, agents: int) -> Path:
    """Writes a GIF at half its size, with the colours of as many agents."""
    size = SIZE[0] // 2, SIZE[1] // 2
    with Image.open(film) as images:
        rate = 1000 / images.info["duration"]
        frames = [
            np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS))
            for image in ImageSequence.Iterator(images)
        ]
    colours = [tuple(colour) for colour in np.rint(255 * palette(agents)).astype(int).tolist()]
    return write_video(to, iter(frames), rate=rate, colours=colours)


def main(arguments: list[str]) -> None:
    print(poster(keys.parse(Options, demo.named(arguments))))


if __name__ == "__main__":
    from experiments import command

    command.run(main)
