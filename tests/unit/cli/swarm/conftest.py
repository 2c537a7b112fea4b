from tests.unit.cli.manager import manager, shoal

__all__ = ["manager", "shoal"]
