"""When a run is asked to stop: by a signal, or by a callback."""

import signal
from dataclasses import dataclass, field

from lorasa_jax import hosts, terminal


@dataclass
class Stop:
    """Set by SIGINT, SIGTERM, SIGHUP or a callback; the run ends after the chunk under way.

    compiling: nothing has happened since the last checkpoint, and compiled code cannot be asked to
    stop: Ctrl-C ends the program as it does elsewhere.
    """

    signal: str | None = None
    compiling: bool = False
    _heard: bool = False
    _old: dict = field(default_factory=dict)

    def __enter__(self):
        for number in terminal.stop_signals():
            self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether any host's run was asked to stop; all hosts ask this at the same updates."""
        signal = hosts.agreed(self.signal)
        self.signal = self.signal or signal
        return signal is not None

    def before(self, number):
        """The handler of a signal that this one took the place of."""
        return self._old[number]

    def _handle(self, number, frame):
        before = self._old[number]
        if self.compiling and number == signal.SIGINT and callable(before):
            before(number, frame)
        if self._heard:
            raise KeyboardInterrupt
        self._heard, self.signal = True, signal.Signals(number).name
