"""Recognition of instances' containers: by the stored id, and by name while no id is stored.

A container with Sluice's labels and another id, such as a copy or one of an instance that is gone, is unknown: it is left
alone and reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlmodel import Session, col, select

from services.engine.port import ContainerView
from services.store.tables import Instance

ContainerIds = Mapping[str, str | None]
"""Instance that is not gone → the id of its container, None while none is stored."""


@dataclass(frozen=True, order=True)
class UnknownContainer:
    """A container that has the labels of the instance `instance`, and is not that instance's container."""

    instance: str
    name: str

    @property
    def removal(self) -> str:
        """The command that removes the container."""
        return f"docker rm --force {self.name}"


def container_ids(session: Session) -> dict[str, str | None]:
    """Return the container ids of all instances that are not gone."""
    living = select(Instance.id, Instance.container_id).where(col(Instance.stopped_at).is_(None))
    return dict(session.exec(living).all())


def recognized(views: Iterable[ContainerView], ids: ContainerIds) -> list[ContainerView]:
    """Return the views of the instances' own containers, at most one for each instance."""
    return [view for view in views if _is_own(view, ids)]


def unrecognized(views: Iterable[ContainerView], ids: ContainerIds) -> list[ContainerView]:
    return [view for view in views if not _is_own(view, ids)]


def unknown_containers(views: Iterable[ContainerView]) -> list[UnknownContainer]:
    """Return the containers of unrecognized views, sorted."""
    return sorted(UnknownContainer(view.instance, view.name) for view in views)


def is_recognized(instance: str, container_id: str, ids: ContainerIds, *, renamed: bool) -> bool:
    """Return whether a container is the one of the instance that its labels name."""
    if instance not in ids:
        return False
    stored = ids[instance]
    return container_id == stored if stored is not None else not renamed


def _is_own(view: ContainerView, ids: ContainerIds) -> bool:
    return is_recognized(view.instance, view.container_id, ids, renamed=view.renamed)
