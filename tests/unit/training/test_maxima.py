import pytest
import torch
from torch import Tensor

from lexmax.retrieval.training.students import splade_pooling as maxima
from lexmax.retrieval.training.students.splade_pooling import positive_maxima

LENGTHS = [3, 1, 5, 2]


def naive(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    logits = features @ weight.T + bias
    return torch.stack([part.max(0).values.relu() for part in logits.split(LENGTHS)])


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = [(sum(LENGTHS), 8), (50, 8), (50,)]
    features, weight, bias = (torch.randn(shape, requires_grad=True) for shape in shapes)
    return features, weight, bias


@pytest.mark.parametrize(("tokens", "terms"), [(256, 2048), (4, 7), (1, 50)])
def test_values_and_gradients_are_those_of_all_logits(monkeypatch: pytest.MonkeyPatch, tokens: int, terms: int) -> None:
    monkeypatch.setattr(maxima, "TOKENS_PER_GROUP", tokens)
    monkeypatch.setattr(maxima, "TERMS_PER_BLOCK", terms)
    upstream = torch.randn(len(LENGTHS), 50)
    results = []
    for pooled in (naive, lambda *tensors: positive_maxima(tensors[0], LENGTHS, *tensors[1:])):
        tensors = inputs()
        values = pooled(*tensors)
        (values.log1p() * upstream).sum().backward()
        results.append([values, *(tensor.grad for tensor in tensors)])
    assert 0 < (results[0][0] == 0).sum() < results[0][0].numel()  # relu cuts some, not all
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_frozen_layer_gets_no_gradient() -> None:
    features, weight, bias = inputs()
    weight.requires_grad_(False)
    positive_maxima(features, LENGTHS, weight, bias).sum().backward()
    assert weight.grad is None
    assert features.grad is not None


def test_autocast_keeps_the_gradients_types() -> None:
    features, weight, bias = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        values = positive_maxima(features, LENGTHS, weight, bias)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, naive(*inputs()), atol=0.05, rtol=0.02)
    values.sum().backward()
    assert features.grad is not None
    assert features.grad.dtype == torch.float32


def test_nothing_positive_is_all_zeros() -> None:
    features, weight, _ = inputs()
    values = positive_maxima(features, LENGTHS, weight, torch.full((50,), -1e3))
    values.sum().backward()
    assert values.abs().max() == 0
    assert features.grad is not None
    assert features.grad.abs().max() == 0
