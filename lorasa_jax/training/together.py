"""Many runs as one program: each in a thread of its own, their calls answered in one go."""

import functools
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax.config import Config
from lorasa_jax.learn.team import Team
from lorasa_jax.training.numbers import lanes_of
from lorasa_jax.training.phases import Progress
from lorasa_jax.training.program import Phase, Program


class Call(NamedTuple):
    """What a member asks of the program, and with what; `update`: how far it has come."""

    what: str
    phase: int
    number: int
    update: int
    progress: Any


class Together:
    """One program that trains many runs side by side, each in a thread of its own.

    A member calls its part (`member(i)`) as if it were a program of its own, and waits. Once every
    member that is left has made a call, those that are least far and call the same are answered in
    one go. All lanes are computed every time, whoever asks, so that a member's numbers depend on
    nobody's pace; the lanes of others are filled with copies, and their results are dropped.
    """

    def __init__(self, configs: Sequence[Config], teams: tuple[Team, ...]):
        """configs: alike but for seeds and `numbers_of`; teams: those of any."""
        self.teams = teams
        self.lanes = lanes_of(configs)
        ends = np.cumsum([config.num_seeds for config in configs])
        self._slices = [
            slice(int(end) - config.num_seeds, int(end))
            for end, config in zip(ends, configs, strict=True)
        ]
        self._program = Program(configs[0], teams, self.lanes)
        self._phases: dict[int, Phase] = {}
        self._left = set(range(len(configs)))
        self._calls: dict[int, Call] = {}
        self._answers: dict[int, Any] = {}
        self._changed = threading.Condition()

    def member(self, number: int) -> "Member":
        """The program as member number `number` sees it."""
        return Member(self, number)

    def leave(self, number: int) -> None:
        """Member number `number` has ended; nobody waits for it any more."""
        with self._changed:
            self._left.discard(number)
            self._answer()

    def ask(self, number: int, call: Call) -> Any:
        """A member's call; returns its lanes' part of the answer, or raises what went wrong."""
        with self._changed:
            self._calls[number] = call
            self._answer()
            self._changed.wait_for(lambda: number in self._answers)
            answer = self._answers.pop(number)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _answer(self):
        """Answers one group of equal calls, if all who are left have called."""
        if not self._calls or set(self._calls) != self._left:
            return
        first = min(self._calls.values(), key=lambda call: (call.update, *call[:3]))
        asking = {i: call for i, call in self._calls.items() if call[:4] == first[:4]}
        try:
            answers = self._carry_out(first, asking)
        except Exception as error:
            answers = dict.fromkeys(asking, error)
        for i in asking:
            del self._calls[i]
        self._answers |= answers
        self._changed.notify_all()

    def _carry_out(self, call, asking):
        """{member: its answer} for members that ask the same."""
        if call.what == "begin":
            return self._split(self._program.begin(), asking)
        stacked = self._stacked({i: call.progress for i, call in asking.items()})
        if call.what == "compile":
            if call.phase not in self._phases:
                self._phases[call.phase] = self._program.compile(call.phase, stacked)
            return dict.fromkeys(asking)
        if call.what == "switch":
            return self._split(self._program.switch(call.phase, stacked), asking)
        phase = self._phases[call.phase]
        run = phase.advance if call.what == "advance" else phase.play
        return self._split(run(stacked, jnp.int32(call.number)), asking)

    def _stacked(self, given):
        """The progress [lane] of all members; those not given have a copy of one that is."""
        filler = next(iter(given.values()))
        parts = [given.get(i, filler) for i in range(len(self._slices))]
        counts = tuple(s.stop - s.start for s in self._slices)
        return _concatenated(parts, counts)

    def _split(self, tree, asking):
        parts = _parts(tree, tuple((s.start, s.stop) for s in self._slices))
        return {i: parts[i] for i in asking}


class Member:
    """What a member's run takes for a program of its own; see Program."""

    def __init__(self, together: Together, number: int):
        self.teams = together.teams
        self._together, self._number = together, number

    def begin(self) -> Progress:
        return self._ask("begin", 0, 0, None)

    def switch(self, index: int, progress: Progress) -> Progress:
        return self._ask("switch", index, 0, progress)

    def compile(self, index: int, progress: Progress) -> Phase:
        self._ask("compile", index, 0, progress)
        phase = self._together._phases[index]
        return Phase(
            phase.name,
            phase.end,
            lambda progress, n: self._ask("advance", index, int(n), progress),
            lambda progress, update: self._ask("play", index, int(update), progress),
        )

    def _ask(self, what, index, number, progress):
        update = -1 if progress is None else int(np.asarray(progress.update)[0])
        return self._together.ask(self._number, Call(what, index, number, update, progress))


@functools.partial(jax.jit, static_argnums=1)
def _concatenated(parts, counts):
    def one(*leaves):
        fitting = [
            leaf if leaf.shape[0] == count else jnp.repeat(leaf[:1], count, axis=0)
            for leaf, count in zip(leaves, counts, strict=True)
        ]
        return jnp.concatenate(fitting)

    return jax.tree.map(one, *parts)


@functools.partial(jax.jit, static_argnums=1)
def _parts(tree, bounds):
    return [jax.tree.map(lambda x, b=b: x[b[0] : b[1]], tree) for b in bounds]
