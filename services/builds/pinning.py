"""Pinning of base images: taken from the engine or pulled, checked for fetching triggers, fixed by id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from anyio import to_thread

from services.builds.bases import bases_of, pin
from services.builds.build_request import BuildRequest
from services.builds.dockerfile import DockerfileError, check_adds
from services.builds.log import LogBuffer
from services.engine.port import Engine, EngineError, ImageInfo


@dataclass(frozen=True)
class Pinned:
    """A Dockerfile whose FROM images are ids. `names`: id → reference."""

    text: str
    names: Mapping[str, str]

    def named(self, line: str) -> str:
        """Return a line of the builder's log with references in place of ids."""
        if " : FROM sha256:" in line:
            for image, name in self.names.items():
                line = line.replace(image, name)
        return line


async def pinned_dockerfile(engine: Engine, request: BuildRequest, log: LogBuffer) -> Pinned:
    """Pin the base images of a build; pull those that the engine does not have.

    The engine gets the ids of the images whose ONBUILD triggers were checked, so a tag that moves during the build
    has no effect. Raises EngineError `build_failed`, also if a trigger fetches a remote source.
    """
    bases = await to_thread.run_sync(bases_of, request.text, request.args, request.target)
    ids: dict[str, str] = {}
    for reference in {base.reference: None for base in bases if base.reference is not None}:
        image = await _image(engine, reference, log)
        await to_thread.run_sync(_check_triggers, reference, image.on_build)
        ids[reference] = image.id
    text = await to_thread.run_sync(pin, request.text, bases, ids)
    return Pinned(text, {image: reference for reference, image in ids.items()})


async def _image(engine: Engine, reference: str, log: LogBuffer) -> ImageInfo:
    if (present := await engine.find_image(reference)) is not None:
        return present
    log.write(f"Pulling {reference}")
    try:
        return await engine.pull(reference)
    except EngineError as error:
        raise EngineError(str(error), reason="build_failed") from error


def _check_triggers(reference: str, triggers: tuple[str, ...]) -> None:
    try:
        for trigger in triggers:
            check_adds(trigger)
    except DockerfileError as error:
        raise EngineError(f"{reference} has an ONBUILD trigger that is refused: {error}", reason="build_failed") from None
