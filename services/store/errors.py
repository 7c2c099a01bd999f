"""The error for a data directory that cannot be used."""


class StoreError(Exception):
    """The error for a store that is not opened or copied. Its message explains what to do.

    Nothing in the store was changed.
    """
