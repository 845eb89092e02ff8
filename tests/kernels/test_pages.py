"""Memory for large results: kept, used again, never shared by two that live."""

import gc
import threading

import pytest
import torch

from kernels import pages

SHAPE = (1, 64, 64, 112)  # 1.75 MiB in float32


@pytest.fixture(autouse=True)
def _nothing_kept():
    pages.forget()
    yield
    pages.forget()


linux = pytest.mark.skipif(not pages._LINUX, reason="torch.empty elsewhere")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("shape", [(3,), (2, 5, 7), (1, 64, 97, 131), (0, 4)])
def test_is_a_tensor_like_any_other(shape, dtype):
    x = pages.empty(*shape, dtype=dtype)
    assert x.shape == shape and x.dtype == dtype and x.is_contiguous()
    x.fill_(3)
    y = x + 1
    assert bool((y == 4).all()) and bool((x == 3).all())


@linux
def test_a_block_is_used_again_when_the_last_view_is_gone():
    x = pages.empty(*SHAPE)
    place, view = x.data_ptr(), x[0, :3].detach()
    del x
    gc.collect()
    assert pages.kept_bytes() == 0  # the view still needs it
    view.fill_(7.0)
    other = pages.empty(*SHAPE).fill_(1.0)
    assert other.data_ptr() != place and bool((view == 7.0).all())
    del view
    assert pages.kept_bytes() >= 4 * other.numel()
    assert pages.empty(*SHAPE).data_ptr() == place


@linux
def test_small_ones_are_left_to_the_c_library():
    x = pages.empty(16)
    del x
    assert pages.kept_bytes() == 0


@linux
def test_not_more_is_kept_than_the_share(monkeypatch):
    monkeypatch.setattr(pages, "KEPT_SHARE", 5 * pages.HUGE / pages._memory())
    tensors = [pages.empty(n * pages.HUGE // 4) for n in (1, 1, 2, 3)]
    while tensors:
        tensors.pop(0)
        assert pages.kept_bytes() <= 5 * pages.HUGE
    assert pages.kept_bytes() == 3 * pages.HUGE  # the others made room for it
    x = pages.empty(6 * pages.HUGE // 4)
    del x
    assert pages.kept_bytes() <= 5 * pages.HUGE


def test_uninitialised_memory_is_nan_where_torch_is_told_so():
    old = pages.empty(*SHAPE).fill_(2.0)
    del old
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert bool(pages.empty(*SHAPE).isnan().all())
    finally:
        torch.use_deterministic_algorithms(False)


def test_threads_never_hold_the_same_block():
    wrong = []

    def work(number):
        for _ in range(50):
            x = pages.empty(*SHAPE).fill_(number)
            y = pages.empty(*SHAPE).fill_(-number)
            if not (bool((x == number).all()) and bool((y == -number).all())):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_of_an_operator_outlive_the_next_call():
    from kernels import linear_attention

    images = [torch.randn(1, 64, 64, 112) for _ in range(3)]
    first = linear_attention(*images, heads=2, backend="cpu")
    kept = first.clone()
    for _ in range(3):
        linear_attention(*(x + 1 for x in images[::-1]), heads=2, backend="cpu")
    assert torch.equal(first, kept)
    with pytest.raises(RuntimeError):
        first.resize_(2, *first.shape)
