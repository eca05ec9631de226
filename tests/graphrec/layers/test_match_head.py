import pytest
import torch
import torch.nn.functional as F

from graphrec.errors import ArgumentError
from graphrec.layers import MatchHead

USERS, ITEMS, CHANNELS = 3, 7, 5


def vectors(size):
    return F.normalize(torch.randn(size, CHANNELS, dtype=torch.float64), dim=1)


def made(context=0, **options):
    torch.manual_seed(0)
    head = MatchHead(CHANNELS, hidden_channels=6, context_channels=context, **options).double()
    with torch.no_grad():
        for weight in head.parameters():
            weight.normal_()
    return head


def weight(lin):
    """The weights of a layer, which are stored at another scale."""
    return lin.weight / lin.in_features**0.5


def question(context=0):
    rows, columns = torch.tensor([0, 2, 2, 1, 0]), torch.tensor([6, 0, 0, 3, 2])
    told = torch.randn(USERS, context, dtype=torch.float64) if context else None
    return vectors(USERS), vectors(ITEMS), rows, columns, torch.randn(5, dtype=torch.float64), told


@pytest.mark.parametrize("context", [0, 4])
def test_equals_the_formula_pair_by_pair(context):
    head = made(context)
    user, item, rows, columns, score, told = question(context)
    found = head(user, item, rows, columns, score, told)
    for pair, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        u, g = user[row] * CHANNELS**0.5, item[column] * CHANNELS**0.5
        known = u if told is None else torch.cat([u, told[row]])
        z = weight(head.lin_product) @ (u * g) + weight(head.lin_user) @ known + head.lin_user.bias
        z = z + weight(head.lin_item) @ g + weight(head.lin_score)[:, 0] * score[pair]
        hidden = F.gelu(weight(head.lin_hidden) @ F.gelu(z) + head.lin_hidden.bias)
        torch.testing.assert_close(found[pair], weight(head.lin_out)[0] @ hidden)


def test_many_pairs_give_what_few_give():
    head = made()
    user, item = vectors(USERS), vectors(ITEMS)
    rows, columns = (part.flatten() for part in torch.meshgrid(torch.arange(USERS), torch.arange(ITEMS), indexing="ij"))
    score = torch.randn(USERS * ITEMS, dtype=torch.float64)
    every = head(user, item, rows, columns, score)
    few = torch.cat([head(user, item, rows[[i]], columns[[i]], score[[i]]) for i in range(USERS * ITEMS)])
    torch.testing.assert_close(every, few)
    assert head(user, item, rows[:0], columns[:0], score[:0]).shape == (0,)


def test_starts_near_the_plain_product_and_learns_from_all_it_is_told():
    torch.manual_seed(0)
    head = MatchHead(CHANNELS, context_channels=4).double()
    user, item, rows, columns, score, told = question(4)
    told.requires_grad_()
    found = head(user, item, rows, columns, score, told)
    assert found.abs().max() < 0.5
    found.square().sum().backward()
    for name, weight in head.named_parameters():
        assert weight.grad.abs().sum() > 0, name
    assert told.grad.abs().sum() > 0


def test_gradients():
    head = made(2)
    user, item, rows, columns, score, told = question(2)
    given = [value.requires_grad_() for value in (user, item, score, told)]
    assert torch.autograd.gradcheck(lambda u, g, s, c: head(u, g, rows, columns, s, c), given)


def test_dropout_is_of_training_alone():
    head = made(dropout=0.5)
    asked = question()
    first, second = head.train()(*asked), head(*asked)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(head.eval()(*asked), head(*asked))


def test_what_does_not_fit_is_named():
    head = made(2)
    user, item, rows, columns, score, told = question(2)
    with pytest.raises(ArgumentError, match=r"context must have shape \[3, 2\], got None"):
        head(user, item, rows, columns, score)
    with pytest.raises(ArgumentError, match=r"context must have shape None, got \[3, 2\]"):
        made()(user, item, rows, columns, score, told)
    with pytest.raises(ArgumentError, match=r"user must have shape \[num_users, 5\], got \[3, 4\]"):
        head(user[:, :4], item, rows, columns, score, told)
    with pytest.raises(ArgumentError, match=r"columns must have shape \[num_pairs\] like rows, got \[4\]"):
        head(user, item, rows, columns[:4], score, told)
    for name, value in (("channels", 0), ("hidden_channels", 0), ("context_channels", -1), ("dropout", 2)):
        with pytest.raises(ArgumentError, match=f"{name} must be"):
            MatchHead(**{"channels": 4, name: value})
    assert repr(MatchHead(4, 8, 2)) == "MatchHead(4, hidden_channels=8, context_channels=2)"
