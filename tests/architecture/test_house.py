"""The house rules that a linter does not know. Layers are import-linter's (`make lint`)."""

from __future__ import annotations

import ast
import fnmatch
import importlib.util
import os
from pathlib import Path

import pytest

ROOMS = ("shoal", "manager", "agent", "machine", "cli")


def room(name: str) -> Path:
    """Where a room stands: in the tree, or below shoal/_rooms in an installed wheel."""
    import shoal  # opens the rooms

    assert shoal.__file__
    spec = importlib.util.find_spec(name)
    assert spec and spec.submodule_search_locations, f"{name} cannot be imported"
    return Path(next(iter(spec.submodule_search_locations)))


MODULES = [
    path
    for name in ROOMS
    for path in sorted(room(name).rglob("*.py"))
    if "_pb2" not in path.name and not {"v1", "_rooms"} & set(path.parts[len(room(name).parts) :])
]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: "/".join(path.parts[-3:]))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


@pytest.mark.parametrize("name", ROOMS[1:])
def test_a_root_package_holds_a_docstring_and_nothing_else(name: str) -> None:
    body = ast.parse((room(name) / "__init__.py").read_text()).body
    assert len(body) == 1, f"{name}/__init__.py has code"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: "/".join(path.parts[-3:]))
def test_no_module_hides_an_unfinished_part(path: Path) -> None:
    text = path.read_text()
    for sign in ("NotImplementedError", "TODO", "FIXME", "shell=True", "except:\n"):
        assert sign not in text, f"{path} contains {sign}"


@pytest.mark.skipif("SHOAL_FROM_WHEEL" not in os.environ, reason="only where a wheel is installed: make test-wheel")
def test_wheel_keeps_the_rooms_to_itself() -> None:
    site = room("shoal").parent
    assert room("manager") == site / "shoal" / "_rooms" / "manager"
    assert not (site / "manager").exists()


def test_no_folder_of_tests_is_passed_over(pytestconfig: pytest.Config) -> None:
    """pytest looks into no folder that its list names, and says nothing of it."""
    top = Path(__file__).parents[1]
    folders = {part for path in top.rglob("test_*.py") for part in path.relative_to(top).parts[:-1]}
    passed_over = pytestconfig.getini("norecursedirs")
    assert not [each for each in folders if any(fnmatch.fnmatchcase(each, pattern) for pattern in passed_over)]
