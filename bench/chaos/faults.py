"""What goes wrong, when, where and for how long: drawn from a seed, so that a run can be repeated. Pure."""

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What goes wrong."""

    GATEWAY_KILLED = "gateway killed (-9)"
    GATEWAY_STOPPED = "gateway stopped, then goes on"
    WORKER_KILLED = "worker killed (-9)"
    RANK_KILLED = "rank killed (-9)"
    STORE_KILLED = "store killed (-9)"
    STORE_SILENT = "store answers nothing"
    STORE_SLOW = "store slow"
    STORE_ERRORS = "store answers 500 or 503"
    STORE_FULL = "store full (507)"
    CUT_FROM_STORE = "gateway cut from the store"
    CUT_FROM_WORKER = "gateway cut from a worker"
    CUT_FROM_CLUSTER = "gateway cut from the Kubernetes API"
    CUT_FROM_CLIENTS = "gateway cut from clients"
    DISK_FULL = "gateway's disk full"
    CLOCK_JUMP = "gateway's clock jumps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How many there are of what can go wrong."""

    gateways: int = 2
    """Each with a disk of its own; the clock of the last one can be set."""

    workers: int = 3
    """Without a model, quick."""

    ranks: int = 1
    """Workers of one rank beside them, with the embedded model; 0: none, and no rank is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong."""

    number: int
    """In the order in which they begin."""

    kind: Kind
    """What."""

    at_s: float
    """Seconds after the first job was sent."""

    lasts_s: float
    """Seconds until it is healed."""

    gateway: int = 0
    """Which one, where it is about a gateway."""

    worker: int = 0
    """Which one, where it is about a worker."""

    amount: float = 0.0
    """How much: seconds of delay or of the clock's jump; an HTTP status; 1 for a way that is silent, 0 for one that refuses."""

    @property
    def place(self) -> str:
        """What is broken; one fault at a time is there."""
        return _PLACES[self.kind].format(gateway=self.gateway, worker=self.worker)


_PLACES = {
    Kind.GATEWAY_KILLED: "gateway {gateway}",
    Kind.GATEWAY_STOPPED: "gateway {gateway}",
    Kind.WORKER_KILLED: "worker {worker}",
    Kind.RANK_KILLED: "worker {worker}",
    Kind.STORE_KILLED: "store",
    Kind.STORE_SILENT: "store",
    Kind.STORE_SLOW: "store",
    Kind.STORE_ERRORS: "store",
    Kind.STORE_FULL: "store",
    Kind.CUT_FROM_STORE: "store",
    Kind.CUT_FROM_WORKER: "way from gateway {gateway} to worker {worker}",
    Kind.CUT_FROM_CLUSTER: "way from gateway {gateway} to the cluster",
    Kind.CUT_FROM_CLIENTS: "way to gateway {gateway}",
    Kind.DISK_FULL: "disk of gateway {gateway}",
    Kind.CLOCK_JUMP: "clock",
}
_LASTS_S = {
    Kind.GATEWAY_STOPPED: (2.0, 10.0),
    Kind.RANK_KILLED: (0.0, 0.0),
    Kind.STORE_SLOW: (3.0, 8.0),
    Kind.STORE_FULL: (1.0, 4.0),
    Kind.CLOCK_JUMP: (4.0, 10.0),
}
_USUALLY_S = (0.5, 6.0)
_AMOUNTS: dict[Kind, tuple[float, ...]] = {
    Kind.STORE_SLOW: (0.02, 0.1, 0.3),
    Kind.STORE_ERRORS: (500, 503),
    Kind.STORE_FULL: (507,),
    Kind.CUT_FROM_STORE: (0, 1),
    Kind.CUT_FROM_WORKER: (0, 1),
    Kind.CUT_FROM_CLUSTER: (0, 1),
    Kind.CUT_FROM_CLIENTS: (0, 1),
    Kind.CLOCK_JUMP: (-86400, -3600, -30, 30, 3600, 86400),
}


def draw(seed: int, count: int, within_s: float, shape: Shape = Shape()) -> list[Fault]:
    """``count`` faults that begin within ``within_s`` seconds, in order; every kind about equally often."""
    chance = random.Random(seed)
    kinds = [kind for kind in Kind if shape.ranks or kind is not Kind.RANK_KILLED]
    pause_s = within_s / max(1, count)
    drawn: list[Kind] = []
    while len(drawn) < count:
        drawn += chance.sample(kinds, len(kinds))
    return [_fault(chance, number, kind, pause_s, shape) for number, kind in enumerate(drawn[:count])]


def _fault(chance: random.Random, number: int, kind: Kind, pause_s: float, shape: Shape) -> Fault:
    last_gateway, echoes = shape.gateways - 1, shape.workers
    at_s, lasts_s = pause_s * (number + chance.random()), chance.uniform(*_LASTS_S.get(kind, _USUALLY_S))
    gateway, worker = chance.randint(0, last_gateway), chance.randrange(echoes + shape.ranks)
    return Fault(
        number=number,
        kind=kind,
        at_s=round(at_s, 2),
        lasts_s=round(lasts_s, 2),
        gateway=last_gateway if kind is Kind.CLOCK_JUMP else gateway,
        worker=chance.randrange(echoes, echoes + shape.ranks) if kind is Kind.RANK_KILLED else worker,
        amount=chance.choice(_AMOUNTS.get(kind, (0,))),
    )
