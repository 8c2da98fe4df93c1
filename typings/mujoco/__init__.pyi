"""MuJoCo's names come from compiled modules without types; its Python modules are read as ever."""

from typing import Any

def __getattr__(name: str) -> Any: ...
