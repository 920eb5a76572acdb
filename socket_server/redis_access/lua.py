"""Lua scripts, which are files beside the Python module that runs them."""

from importlib.resources import files


def load(package: str, *names: str) -> str:
    """Return a script that consists of these `.lua` files of a package, in this order."""
    return "\n".join([files(package).joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in names])
