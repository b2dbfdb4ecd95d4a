"""The network's tests compare numbers bit for bit, so torch runs on one thread, as in a worker."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    torch.set_num_threads(1)
