"""What each of two processes does in test_distributed.py: apart, as both import it anew."""

import os
import time
from pathlib import Path

import pytest
import torch

from codec.errors import TrainingError
from codec.training.distributed import ranks_of_torchrun
from codec.training.rows import Rows


def talk(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with ranks_of_torchrun("cpu") as ranks:
        assert (ranks.rank, ranks.size, ranks.is_first) == (rank, 2, rank == 0)

        rows = ranks.rows(5)
        assert rows == (Rows(0, 2, 5), Rows(2, 5, 5))[rank]
        batch = torch.arange(5 * 24.0).reshape(5, 2, 3, 4)
        for layout in (torch.contiguous_format, torch.channels_last):
            for dtype in (torch.float32, torch.bfloat16):
                all_ = batch.to(dtype).contiguous(memory_format=layout)
                gathered = ranks.gathered(all_[rows.slice], rows)
                assert torch.equal(gathered, all_) and gathered.stride() == all_.stride()

        both, mine, none = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
        both.grad = torch.full((2,), 1.0 + rank)
        if rank == 1:
            mine.grad = torch.tensor([5.0, float("inf")])
        ranks.add_gradients([both, mine, none])
        assert both.grad.tolist() == [3, 3] and mine.grad.tolist() == [5, float("inf")]
        assert none.grad is None

        def write() -> int:
            if rank == 0:
                time.sleep(0.3)
            with open(folder / "order", "a") as file:
                file.write(f"{rank}\n")
            return rank

        assert ranks.in_turn(write) == rank
        with pytest.raises(TrainingError, match="process 1 does not have the clips"):
            ranks.check_alike(weights="same", clips=rank)
        ranks.check_alike(weights="same")
