from tests.unit.inference.gpu.conftest import ranks

__all__ = ["ranks"]
