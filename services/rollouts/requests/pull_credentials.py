"""Registry credentials of pending deployments, in memory only."""

from __future__ import annotations


class PullCredentials:
    """The credentials that requests brought for the pull of their image, by deployment.

    They are never stored, and no presenter or page may hold this object (tests/app/pages/test_pull_credentials.py).
    """

    def __init__(self) -> None:
        self._by_deployment: dict[int, str] = {}

    def put(self, deployment: int, credentials: str | None) -> None:
        """Set the credentials of a deployment before the commit, so that no pull can miss them.

        None deletes those of a deployment with the same id whose transaction failed.
        """
        if credentials is None:
            self.forget(deployment)
        else:
            self._by_deployment[deployment] = credentials

    def get(self, deployment: int) -> str | None:
        """Return the credentials of a deployment; they stay until `forget`, because a pull may be repeated."""
        return self._by_deployment.get(deployment)

    def forget(self, deployment: int) -> None:
        self._by_deployment.pop(deployment, None)

    def deployments(self) -> set[int]:
        """Return the ids of the deployments that have credentials."""
        return set(self._by_deployment)
