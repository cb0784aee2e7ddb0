"""One run: begin, load and faults, rest, check."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.acceptance.pair import Pair
from tests.chaos.audit import Recorder
from tests.chaos.faults import Faults, plan
from tests.chaos.invariants import Invariant, check, rest
from tests.chaos.load import Load
from tests.chaos.world import STOP_SECONDS, World


def run(folder: Path, pair: Pair, seed: int, seconds: float, say: Callable[[str], None]) -> list[Invariant]:
    """Break things for so many seconds, and return what must be true afterwards.

    Args:
        pair: running servers with nothing in them.
        seed: decides which fault comes when.
        say: takes the timeline, line by line.
    """
    with ExitStack() as stack:
        world = World(folder, pair, say)
        stack.callback(world.close)
        recorder = Recorder(world.engine.amqp_url)
        stack.callback(recorder.close)
        load = Load(world.engine, seed)
        stack.callback(load.close)
        recorder.bind()
        world.store_declarations()
        world.begin()
        recorder.start()
        load.begin()
        world.say(f"the load runs; faults for {seconds:g} s, seed {seed}")
        Faults(world, recorder).run(plan(seed, seconds), seconds)
        world.say("no more faults: servers, networks and programs are put right")
        world.heal()
        world.say("wait until everything has come to rest")
        at_rest = []
        try:
            rest(world.engine, load)
        except AssertionError as error:
            at_rest = [str(error)]
        if load.broken is not None:
            raise load.broken
        found = [Invariant("everything comes to rest", len(world.slots), at_rest), *check(world, load, recorder)]
        codes = {slot.program.name: slot.program.stop(STOP_SECONDS) for slot in world.slots}
        found.append(Invariant("programs end with success", len(codes), [f"{n}: {c}" for n, c in codes.items() if c]))
        faults = ", ".join(f"{number} × {kind}" for kind, number in sorted(world.done.items()))
        world.say(f"faults: {faults}")
        world.say(
            f"load: {len(load.process_ids)} starts accepted, {load.refused} refused, {load.repeated} sent again;"
            f" answers {dict(load.answers)}"
        )
        return found
