"""Refusal of container settings that the kernel or the engine cannot start a program with."""

from __future__ import annotations

from collections.abc import Iterator

from services.errors import FieldError
from services.spec import ServiceSpec
from services.text_forms import MAX_WORD


def container_limit_errors(spec: ServiceSpec) -> list[FieldError]:
    """Check the length in bytes of each word and variable, and the length of volumes' names.

    The spec's own limits count characters. A word that is too long would only show as an instance that exits at once.
    """
    return [*_word_errors(spec), *_volume_errors(spec)]


def _word_errors(spec: ServiceSpec) -> Iterator[FieldError]:
    check = spec.healthcheck.test if spec.healthcheck is not None else None
    words = {"command": spec.command, "entrypoint": spec.entrypoint, "healthcheck.test": check}
    for field, texts in words.items():
        for number, text in enumerate(texts or ()):
            if _too_long(text):
                yield FieldError(
                    f"{field}.{number}", f"must have at most {MAX_WORD - 1} bytes: the kernel takes no longer word"
                )
    for name, value in spec.environment.items():
        if _too_long(f"{name}={value}"):
            message = f"must have at most {MAX_WORD - 1} bytes with its name: the kernel's limit; mount a file"
            yield FieldError(f"environment.{name[:100]}", message)


def _too_long(text: str) -> bool:
    return 4 * len(text) >= MAX_WORD and len(text.encode()) >= MAX_WORD


def _volume_errors(spec: ServiceSpec) -> Iterator[FieldError]:
    for number, volume in enumerate(spec.volumes):
        if volume.type == "volume" and len(volume.source or "") == 1:
            yield FieldError(f"volumes.{number}.source", "must have at least two characters: the engine's rule")
