"""Fetch, verify and list models: the use case."""

import logging
from pathlib import Path

from services.common.errors import ModelBroken, SettingsError
from services.common.fleet import ModelState
from services.inference.delivery.catalogue import CATALOGUE, EMBEDDED_DIRECTORY, Catalogue, ModelSet, SourceFile
from services.inference.delivery.conversion import Convert
from services.inference.delivery.download import Downloader
from services.inference.delivery.files import sha256_of, size_of, volume_errors
from services.inference.delivery.gather import Gathering
from services.inference.delivery.hub import Hub
from services.inference.delivery.progress import OnProgress, Progress, Stage
from services.inference.delivery.settings import DeliverySettings, Token
from services.inference.delivery.states import model_states
from services.inference.delivery.volume import MARKER, Volume
from services.inference.delivery.wanted import check_revision, model_of, wanted_files
from services.inference.model_files import named_directory

_log = logging.getLogger(__name__)


class Delivery:
    """Models of one catalogue on one volume. Blocking: for a command or a thread."""

    def __init__(
        self,
        settings: DeliverySettings,
        *,
        token: Token | None = None,
        catalogue: Catalogue = CATALOGUE,
        embedded_directory: Path = EMBEDDED_DIRECTORY,
        convert: Convert | None = None,
        on_progress: OnProgress = lambda progress: None,
    ) -> None:
        """``convert`` is used where the settings want it; without it files stay as they were published."""
        self._settings = settings
        self._token = token
        self._catalogue = catalogue
        self._embedded_directory = embedded_directory
        self._convert = convert if settings.convert else None
        self._on_progress = on_progress
        self._volume = Volume(named_directory(settings.directory))

    def fetch(self, *names: str) -> None:
        """Make models ready, one after the other; those that are ready stay as they are.

        Another process that downloads to the volume is waited for. What was received when an error comes up is kept, and the
        next call goes on behind it.

        Raises:
            InvalidOption: no such model.
            SettingsError: token, endpoint, revision, place or directory must be changed.
            ModelBroken: the hub has other files than the catalogue, or the model isn't there and must not be fetched.
            Unavailable: the hub doesn't answer, or the volume failed.
            StoreFull: not enough space.
        """
        models = [model_of(name, self._catalogue) for name in names]
        check_revision(models, self._settings)
        for model in models:
            if not model.embedded:
                self._fetch(model)
            self._on_progress(Progress(stage="ready", model=model.name))

    def verify(self, name: str) -> None:
        """Read all files of a model and compare them with their hashes.

        Raises:
            InvalidOption: no such model.
            ModelBroken: something is missing or changed.
        """
        model = model_of(name, self._catalogue)
        directory = (self._embedded_directory if model.embedded else self._volume.directory) / name
        for file, sha256 in self._hashes(model, directory).items():
            self._check_file(name, directory / file, sha256)

    def states(self) -> tuple[ModelState, ...]:
        """How every model of the catalogue is now."""
        return model_states(self._volume.directory, catalogue=self._catalogue, embedded_directory=self._embedded_directory)

    def _fetch(self, model: ModelSet) -> None:
        wanted = wanted_files(model, self._settings)
        if self._is_ready(model, wanted):
            return
        if self._settings.offline:
            raise ModelBroken(f"{model.name} is not ready in {self._volume.directory}, and offline mode forbids to fetch it.")
        if self._volume.has_foreign_files(model.name):
            raise SettingsError(
                f"{self._volume.directory / model.name} holds files that were not fetched; move them away, or fetch elsewhere.",
                field="directory",
            )
        with volume_errors(self._volume.directory), self._volume.exclusive(self._on_progress):
            # While this process waited the other one may have done it.
            if not self._is_ready(model, wanted):
                self._gathering(model).run(wanted)

    def _is_ready(self, model: ModelSet, wanted: tuple[SourceFile, ...]) -> bool:
        marker = self._volume.ready(model.name)
        return marker is not None and marker.answers(wanted)

    def _gathering(self, model: ModelSet) -> Gathering:
        def tell(file: str, stage: Stage, done_bytes: int, total_bytes: int) -> None:
            progress = Progress(stage=stage, model=model.name, file=file, done_bytes=done_bytes, total_bytes=total_bytes)
            self._on_progress(progress)
            self._volume.tell(progress)

        hub = Hub(self._settings, self._token)
        if hub.sends_token_in_clear:
            _log.warning("the token goes over the network unencrypted, because the endpoint is not https")
        return Gathering(
            self._volume.staging(model.name),
            Downloader(hub, self._settings),
            convert=self._convert,
            keep_free_bytes=self._settings.min_free_bytes,
            tell=tell,
        )

    def _hashes(self, model: ModelSet, directory: Path) -> dict[str, str]:
        if model.embedded:
            return {each.file: each.sha256 for each in model.files}
        marker = self._volume.marker(model.name)
        listed = {record.role for record in marker.files} if marker else set()
        if missing := [each.file for each in model.files if each.role not in listed]:
            why = "" if marker else f" {directory} has no {MARKER}, which a download writes last."
            raise ModelBroken(f"{model.name} is not whole: {', '.join(missing)} not there or not known.{why} Fetch it first.")
        return {record.name: record.sha256 for record in marker.files} if marker else {}

    def _check_file(self, name: str, path: Path, sha256: str) -> None:
        def tell(done_bytes: int) -> None:
            self._on_progress(Progress(stage="checking", model=name, file=path.name, done_bytes=done_bytes, total_bytes=size))

        try:
            size = size_of(path)
            found = sha256_of(path, tell)
        except OSError as error:
            raise ModelBroken(f"{path} can't be read: {error.strerror}. Fetch {name} again.") from error
        if found != sha256:
            raise ModelBroken(
                f"{path} was changed or is damaged: its SHA-256 is {found}, not {sha256}. Delete it and fetch {name} again."
            )
