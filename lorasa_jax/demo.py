"""The command line `lorasa demo [NAME] [key=value ...]`: a policy of this package at play.

The folder `pretrained` holds a few finished policies, each with a card and one recorded episode.
`lorasa demo` opens that episode in a browser at once; `play=true` lets the policy play anew.
"""

import gzip
import json
import os
import sys
import tempfile
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorasa_jax import keys
from lorasa_jax.errors import ConfigError
from lorasa_jax.files import write_atomically
from lorasa_jax.values import close

FOLDER = Path(__file__).with_name("pretrained")
MODEL_CARD, REPLAY = "card.json", "replay.html.gz"


@dataclass(frozen=True)
class Options:
    """What is shown, and where to."""

    name: str = keys.key("ant_4x2", "a policy of this package; NAME is short for name=NAME")
    to: str | None = keys.key(None, "the page; null: lorasa_demo_NAME.html among temporary files")
    play: bool = keys.key(False, "play a new episode instead of showing the recorded one")
    seed: int = keys.key(0, "of the new episode", least=0)
    browser: bool = keys.key(True, "open the page in a browser, where there is one")


def names() -> list[str]:
    """The policies of this package."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{MODEL_CARD}"))


def folder(name: str) -> Path:
    """The folder of one of this package's policies, which `lorasa_jax.load` reads.

    Raises:
      ConfigError: there is none of that name.
    """
    if name not in names():
        raise ConfigError(f"name={name} is no policy of this package; {close(name, names())}")
    return FOLDER / name


def card(name: str) -> dict[str, Any]:
    """The model card of one of this package's policies: what it is, and what it earns."""
    return json.loads((folder(name) / MODEL_CARD).read_text(encoding="utf-8"))


def parse(arguments: list[str]) -> Options:
    """Options from [NAME] and `key=value` arguments; ConfigError names what is wrong."""
    return keys.parse(Options, named(arguments))


def named(arguments: list[str]) -> list[str]:
    """The arguments with a first NAME as name=NAME."""
    first, *rest = arguments or [""]
    return [f"name={first}", *rest] if first and "=" not in first else arguments


def demo(options: Options) -> Path:
    """Writes the replay of a policy as a page; returns its path.

    Raises:
      ConfigError: there is no policy of that name, or the page cannot be written.
    """
    source = folder(options.name)
    path = Path(options.to or Path(tempfile.gettempdir(), f"lorasa_demo_{options.name}.html"))
    try:
        if options.play:
            _play(source, options.seed, path)
        else:
            text = gzip.decompress((source / REPLAY).read_bytes()).decode("utf-8")
            write_atomically(path, text)
    except OSError as error:
        raise ConfigError(
            f"to={path} cannot be written ({error.strerror}); give a file in a folder that exists."
        ) from error
    return path.absolute()


def _play(source, seed, path):
    from lorasa_jax import episodes
    from lorasa_jax.loading import load

    policy = load(source)
    states, rewards = episodes.episode(policy, seed)
    episodes.pictured(policy).replay(states, rewards, path, title=episodes.title(policy))


def has_browser() -> bool:
    """Whether a browser with a window can be opened here; those of a terminal are not."""
    if sys.platform.startswith("linux"):
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def sentence(card: dict[str, Any]) -> str:
    """One line of a card: what was trained, and what it earns."""
    found = card["evaluation"]
    low, high = found["interval"]
    return (
        f"{card['env']}, {card['algo']} with {card['sharing']}, preset={card['preset']}, seed "
        f"{card['seed']}, {card['step']:,} steps: return {found['mean']:,.0f} "
        f"({low:,.0f} to {high:,.0f}, n = {found['episodes']} episodes)"
    )


def main(arguments: list[str] | None = None) -> None:
    """Exit code 0, or 2 where something was refused."""
    arguments = sys.argv[1:] if arguments is None else arguments
    known = ", ".join(names())
    keys.help_and_leave(
        arguments, Options, f"lorasa demo [NAME] KEY=VALUE ...      policies: {known}"
    )
    try:
        options = parse(arguments)
        path = demo(options)
    except ConfigError as error:
        print(f"lorasa_jax.demo: {error}", file=sys.stderr)
        sys.exit(2)
    print(sentence(card(options.name)))
    opened = options.browser and has_browser() and webbrowser.open(path.as_uri())
    print(f"{path}" if opened else f"open this page in a browser: {path}")


if __name__ == "__main__":
    main()
