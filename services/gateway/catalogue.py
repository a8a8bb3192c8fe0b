"""Which models there are: those that workers have ever named."""

import asyncio
import math
from dataclasses import dataclass

from services.common.encoders import named_encoder
from services.common.errors import InvalidOption, NotSupported, WorkerUnavailable
from services.common.fleet import INSTALLED_STATES, ModelState, WorkerModel, WorkerStatus, has_encoder
from services.gateway.dispatch import best_offer
from services.gateway.job_request import JobRequest
from services.gateway.planning import Offer
from services.gateway.ports import Workers

_LOOK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A model that some worker serves, or served."""

    model: WorkerModel
    """As the worker describes it."""

    ready: bool
    """Some worker serves it now."""

    pools: tuple[str, ...]
    """Where."""


class Catalogue:
    """The models of this installation."""

    def __init__(self, workers: Workers, default: str) -> None:
        self._workers = workers
        self._default = default

    def models(self) -> list[KnownModel]:
        """All that are known, by name."""
        found: dict[str, KnownModel] = {}
        for view in self._workers.views():
            for model in view.status.models if view.status else ():
                known = found.get(model.name, KnownModel(model=model, ready=False, pools=()))
                ready = known.ready or view.state in ("ready", "busy")
                pools = tuple(sorted({*known.pools, view.pool}))
                found[model.name] = KnownModel(model=known.model, ready=ready, pools=pools)
        return [found[name] for name in sorted(found)]

    def installed(self) -> dict[str, ModelState]:
        """Models in the workers' model directories, served or not, by name; each as it is where it is best."""
        found: dict[str, ModelState] = {}
        for view in self._workers.views():
            for state in view.status.installed if view.status else ():
                known = found.setdefault(state.name, state)
                found[state.name] = min(known, state, key=_badness)
        return found

    def default_model(self) -> str:
        """What a request without a model gets; empty while no worker has answered."""
        models = self.models()
        return self._default or (models[0].model.name if models else "")

    async def offer_soon(self, request: JobRequest, wait_s: float) -> Offer:
        """:meth:`offer`, after at most ``wait_s`` seconds: a gateway that was just started has not heard of everybody yet."""
        for _ in range(math.ceil(wait_s / _LOOK_S)):
            if not self._could_hear_more(request):
                break
            await asyncio.sleep(_LOOK_S)
        return self.offer(request)

    def speed(self, model: str, pool: str = "") -> float:
        """Output megapixels a second of all workers together that serve a model, as far as they have measured it."""
        views = [view for view in self._workers.views() if pool in ("", view.pool) and view.state in ("ready", "busy")]
        return sum(view.status.megapixels_per_second for view in views if view.status and _serves(view.status, model))

    def offer(self, request: JobRequest) -> Offer:
        """What workers, ready or absent, would restore a request with.

        Raises:
            WorkerUnavailable: no worker has ever answered.
            InvalidOption: none knows this model, or not in this pool.
            NotSupported: none of them has the encoder.
        """
        known = {m.model.name: m for m in self.models()}
        if not known:
            raise WorkerUnavailable(
                "No inference worker has answered yet, so nothing can be restored; start one, or try again soon.", retry_after_s=5
            )
        name = request.model or self.default_model()
        if name not in known:
            raise InvalidOption(f"There is no model {name!r} here; choose {' or '.join(known)}.", field="request.model")
        if request.pool and request.pool not in known[name].pools:
            raise InvalidOption(
                f"The pool {request.pool!r} doesn't serve {name}; choose {' or '.join(known[name].pools)}.", field="request.pool"
            )
        views, encoders = self._workers.views(), named_encoder(request.encoder).names
        for absent in (False, True):
            found = best_offer(views, name, request.pool, encoders=encoders, absent=absent)
            if found is not None:
                return found
        if best_offer(views, name, request.pool, absent=True) is not None:
            raise _no_encoder(request, name)
        raise WorkerUnavailable(f"No worker serves {name} now; try again soon.", retry_after_s=5)

    def _could_hear_more(self, request: JobRequest) -> bool:
        """Whether what a request needs is unknown, and somebody could still know it."""
        views, known = self._workers.views(), {known.model.name for known in self.models()}
        encoders = named_encoder(request.encoder).names
        needed = (request.model in known if request.model else bool(known)) and any(
            has_encoder(view.status.encoders, encoders) for view in views if view.status
        )
        return not needed and (not known or any(view.status is None for view in views))


def _no_encoder(request: JobRequest, model: str) -> NotSupported:
    where = f"of the pool {request.pool}" if request.pool else f"that serve {model}"
    return NotSupported(
        f"{named_encoder(request.encoder).title} doesn't open on the workers {where}: the card or its driver has no encoder, or "
        "workers may not use it; leave the encoder out for x264.",
        field="request.encoder",
    )


def _serves(status: WorkerStatus, model: str) -> bool:
    return not model or any(served.name == model for served in status.models)


def _badness(model: ModelState) -> int:
    # A worker of a later version may know other states.
    return INSTALLED_STATES.index(model.state) if model.state in INSTALLED_STATES else len(INSTALLED_STATES)
