"""Which models there are: those that workers have ever named."""

from dataclasses import dataclass

from services.common.errors import InvalidOption, WorkerUnavailable
from services.common.fleet import INSTALLED_STATES, ModelState, WorkerModel
from services.gateway.dispatch import best_offer
from services.gateway.jobs import JobRequest
from services.gateway.planning import Offer
from services.gateway.ports import Workers


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

    def offer(self, request: JobRequest) -> Offer:
        """What workers, ready or absent, would restore a request with.

        Raises:
            WorkerUnavailable: no worker has ever answered.
            InvalidOption: none knows this model, or not in this pool.
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
        views = self._workers.views()
        found = best_offer(views, name, request.pool) or best_offer(views, name, request.pool, absent=True)
        if found is None:
            raise WorkerUnavailable(f"No worker serves {name} now; try again soon.", retry_after_s=5)
        return found


def _badness(model: ModelState) -> int:
    # A worker of a later version may know other states.
    return INSTALLED_STATES.index(model.state) if model.state in INSTALLED_STATES else len(INSTALLED_STATES)
