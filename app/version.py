"""The version of Sluice."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("sluice")
except PackageNotFoundError:  # run from a source tree that was never installed
    VERSION = "0.0.0"
