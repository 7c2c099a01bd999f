"""Why a data directory cannot be used, said in a sentence that a person can act on."""


class StoreError(Exception):
    """The store will not be opened, and nothing in it was changed."""
