import math

import pytest
import torch

from lexmax.retrieval.training.losses.contrastive import in_batch_nll
from lexmax.retrieval.training.losses.flops import flops, l1, quadratic_ramp
from lexmax.retrieval.training.losses.kl import kl_distillation
from lexmax.retrieval.training.losses.lambda_rank import lambda_rank
from lexmax.retrieval.training.losses.margin_mse import margin_mse
from lexmax.retrieval.training.losses.multivector import maxsim_all, maxsim_lists
from lexmax.retrieval.training.losses.tct import tct_distillation

WEIGHTS = torch.tensor([[1.0, 0.0, 3.0], [2.0, 0.0, 0.0]])


def test_flops_squares_each_terms_mean() -> None:
    assert flops(WEIGHTS).item() == pytest.approx(((1 + 2) / 2) ** 2 + 0 + (3 / 2) ** 2)


def test_flops_weighs_terms() -> None:
    g = torch.tensor([2.0, 5.0, 0.5])
    assert flops(WEIGHTS, term_weights=g).item() == pytest.approx(2 * 1.5**2 + 0.5 * 1.5**2)


def test_flops_leaves_rows_alone_that_are_sparse_enough() -> None:
    assert flops(WEIGHTS, min_nonzeros=1).item() == pytest.approx((1 / 2) ** 2 + (3 / 2) ** 2)
    assert flops(WEIGHTS, min_nonzeros=2).item() == 0


def test_l1_is_the_mean_row_sum() -> None:
    assert l1(WEIGHTS).item() == pytest.approx((4 + 2) / 2)


def test_the_ramp_is_quadratic_and_then_flat() -> None:
    assert [quadratic_ramp(step, 4) for step in (1, 2, 4, 9)] == [1 / 16, 1 / 4, 1, 1]


def test_nll_counts_every_column_but_the_excluded() -> None:
    scores = torch.tensor([[2.0, 0.0, 1.0]])
    target = torch.tensor([0])
    e = math.exp
    assert in_batch_nll(scores, target).item() == pytest.approx(-math.log(e(2) / (e(2) + 1 + e(1))))
    assert in_batch_nll(scores, target, temperature=0.5).item() == pytest.approx(-math.log(e(4) / (e(4) + 1 + e(2))))
    excluded = torch.tensor([[False, False, True]])
    assert in_batch_nll(scores, target, excluded=excluded).item() == pytest.approx(-math.log(e(2) / (e(2) + 1)))


def test_margin_mse_averages_over_negatives_alone() -> None:
    scores, teacher = torch.tensor([[5.0, 3.0, 1.0]]), torch.tensor([[2.0, 1.0, 2.0]])
    expected = (((5 - 3) - (2 - 1)) ** 2 + ((5 - 1) - (2 - 2)) ** 2) / 2
    assert margin_mse(scores, teacher, torch.tensor([0])).item() == pytest.approx(expected)


def test_margin_mse_takes_a_positive_in_any_column() -> None:
    scores, teacher = torch.tensor([[3.0, 5.0]]), torch.tensor([[1.0, 2.0]])
    assert margin_mse(scores, teacher, torch.tensor([1])).item() == pytest.approx(((5 - 3) - (2 - 1)) ** 2)


def test_lambda_rank_weighs_pairs_by_the_students_ranks() -> None:
    scores, teacher = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[9.0, 4.0, 4.0]])  # the student's ranks: 3, 1, 2
    expected = abs(1 / 3 - 1) * math.log(1 + math.exp(3 - 1)) + abs(1 / 3 - 1 / 2) * math.log(1 + math.exp(2 - 1))
    assert lambda_rank(scores, teacher).item() == pytest.approx(expected)  # the two that tie are no pair
    assert lambda_rank(scores.repeat(3, 1), teacher.repeat(3, 1)).item() == pytest.approx(expected)


def test_kl_is_from_the_teacher_to_the_student() -> None:
    scores, teacher = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    expected = (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5) + 0) / 2
    assert kl_distillation(scores, teacher).item() == pytest.approx(expected)
    assert kl_distillation(scores, 2 * teacher, temperature=2).item() == pytest.approx(expected)


def test_kl_sends_the_teacher_no_gradient() -> None:
    teacher = torch.tensor([[1.0, 0.0]], requires_grad=True)
    scores = torch.zeros(1, 2, requires_grad=True)
    kl_distillation(scores, teacher).backward()
    assert teacher.grad is None
    assert scores.grad is not None
    assert scores.grad[0, 0] < 0


def test_maxsim_heeds_the_mask_even_where_all_similarities_are_negative() -> None:
    queries = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.0, -1.0]]])
    documents = torch.tensor([[[-0.5, 0.2], [0.0, 0.0]], [[0.3, -0.4], [0.1, 0.6]]])
    mask = torch.tensor([[True, False], [True, True]])
    expected = torch.tensor([[-0.5 + 0.2, 0.3 + 0.6], [0.5 - 0.2, -0.1 + 0.4]])
    torch.testing.assert_close(maxsim_all(queries, documents, mask), expected)
    lists = documents[None].expand(2, -1, -1, -1), mask[None].expand(2, -1, -1)
    torch.testing.assert_close(maxsim_lists(queries, *lists), expected)


def test_maxsim_gradient_reaches_the_best_token_alone() -> None:
    documents = torch.tensor([[[1.0, 0.0], [0.5, 0.0]]], requires_grad=True)
    maxsim_all(torch.tensor([[[1.0, 2.0]]]), documents, torch.ones(1, 2, dtype=torch.bool)).sum().backward()
    assert documents.grad is not None
    assert documents.grad.tolist() == [[[1, 2], [0, 0]]]


def test_tct_sharpens_the_teacher_alone() -> None:
    teacher = torch.tensor([[math.log(3) / 4, 0.0]])
    assert tct_distillation(torch.zeros(1, 2), teacher).item() == pytest.approx(
        0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    )
