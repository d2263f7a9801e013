"""Which versions run. Edge: reads the installed packages' metadata, once."""

import functools
import platform
from importlib.metadata import version
from typing import Any, Final

__all__ = ["versions"]

_PACKAGES: Final = ("grpcio", "protobuf", "pydantic", "cel-expr-python", "pyjwt", "cryptography", "redis")


@functools.cache
def versions() -> dict[str, Any]:
    """Return the versions of Edgekeeper, of Python and of the packages that decide."""
    return {
        "edgekeeper": version("edgekeeper"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }
