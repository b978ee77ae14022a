"""What is imported when it is first used: a net answers sooner without what only its training needs."""

from __future__ import annotations

import importlib
from typing import Any


class Deferred:
    """Stands for a module, or for what it has of a name: `module` or `module:name`.

    >>> Deferred("math:sqrt")(4.0), Deferred("math").pi
    (2.0, 3.141592653589793)
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def _found(self) -> Any:
        module, _, name = self._path.partition(":")
        found = importlib.import_module(module)
        return getattr(found, name) if name else found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found(), name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._found()(*args, **options)
