from collections.abc import Iterator

import pytest
import torch

from tests.unit.inference.gpu.ranks import Ranks

# Equal bytes need a fixed thread count, and tensors this small only lose by being shared out.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    processes = Ranks(tmp_path_factory.mktemp("ranks"))
    yield processes
    processes.close()
