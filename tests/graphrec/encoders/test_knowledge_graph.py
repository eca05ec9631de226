import pytest
import torch

from graphrec.encoders import KnowledgeGraphEncoder
from graphrec.errors import ArgumentError

NUM_ITEMS, NUM_RELATIONS, DIM = 4, 2, 5
# Entity 4 joins the items 0 and 1 (once as tail, once as head), 5 hangs on item 2 alone, 6 lies behind 4.
TRIPLES = torch.tensor([[0, 0, 4], [4, 1, 1], [2, 1, 5], [4, 0, 6]])


def make(triples=TRIPLES, seed=0, **options):
    torch.manual_seed(seed)
    encoder = KnowledgeGraphEncoder(NUM_ITEMS, NUM_RELATIONS, triples, DIM, **options).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_()
    return encoder


def items(seed=1):
    return torch.randn(NUM_ITEMS, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_items_attend_to_entities_along_both_directions_of_a_triple():
    encoder = make(min_entity_items=1)
    x = items()
    (out,) = encoder(x)
    conv, vectors = encoder.sides[0], dict(zip(encoder.entities.tolist(), encoder.entity[0], strict=True))
    expected = torch.zeros(NUM_ITEMS, DIM, dtype=torch.float64)
    for item in range(NUM_ITEMS):
        # A triple's own direction leads to its tail; its inverse, of type r + num_relations, to its head.
        near = [(h, r) for h, r, t in TRIPLES.tolist() if t == item]
        near += [(t, r + NUM_RELATIONS) for h, r, t in TRIPLES.tolist() if h == item]
        if near:
            scores = [
                vectors[e] @ conv.att_src[0] + x[item] @ conv.att_dst[0] + conv.relation_score[r, 0] for e, r in near
            ]
            alpha = torch.nn.functional.leaky_relu(torch.stack(scores), conv.negative_slope).softmax(0)
            expected[item] = sum(a * vectors[e] for a, (e, _) in zip(alpha, near, strict=True))
    torch.testing.assert_close(out, encoder.gates[0] * expected)


def test_some_rows_are_those_of_all():
    # Several edges an item, not in the order of the items: whose type is whose matters.
    encoder = make(torch.tensor([[5, 1, 2], [0, 0, 4], [4, 1, 1], [2, 0, 4], [5, 0, 1], [5, 1, 0]]), num_sides=2)
    x, rows = items(), torch.tensor([2, 0])
    everything = encoder(x, x)
    some, others = encoder(x[rows], x, rows=[rows, None])
    torch.testing.assert_close(some, everything[0][rows])
    torch.testing.assert_close(others, everything[1])


def test_entities_of_one_item_are_left_out_by_default():
    encoder = make()
    assert encoder.entities.tolist() == [4]
    (out,) = encoder(items())
    assert out[:2].any(dim=1).all()
    assert not out[2:].any()


def test_one_hop_does_not_see_behind_an_entity_and_two_do():
    without = TRIPLES[:3]
    near, far = make(min_entity_items=1), make(hops=2)
    near_without, far_without = make(without, min_entity_items=1), make(without, hops=2)
    for one, other in ((near, near_without), (far, far_without)):
        kept = torch.isin(one.entities, other.entities)
        other.load_state_dict({**one.state_dict(), "entity": one.entity.detach()[:, kept]})
    torch.testing.assert_close(near(items())[0], near_without(items())[0])
    assert not torch.allclose(far(items())[0][0], far_without(items())[0][0])


def test_sides_have_entities_and_attention_of_their_own():
    encoder = make(num_sides=2)
    first, second = encoder(items(), items())
    assert not torch.allclose(first[0], second[0])
    with torch.no_grad():
        encoder.entity[1].zero_()
    after, silent = encoder(items(), items())
    torch.testing.assert_close(after, first)
    assert not silent.any()


def test_attention_is_that_of_the_output_and_sums_to_one():
    encoder = make(min_entity_items=1, heads=3)
    edges = encoder.attention(items())
    total = torch.zeros(NUM_ITEMS, dtype=torch.float64).index_add(0, edges.item, edges.alpha)
    torch.testing.assert_close(total, torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64))
    rows = dict(zip(encoder.entities.tolist(), encoder.entity[0], strict=True))
    messages = torch.stack([rows[entity] for entity in edges.entity.tolist()]) * edges.alpha[:, None]
    expected = torch.zeros(NUM_ITEMS, DIM, dtype=torch.float64).index_add(0, edges.item, messages)
    torch.testing.assert_close(encoder(items())[0], encoder.gates[0] * expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hops": 4}, "hops must be within 1..3"),
        ({"min_entity_items": 0}, "min_entity_items must be"),
        ({"triples": torch.zeros(0, 3, dtype=torch.int64)}, r"triples must have shape \[num_triples, 3\]"),
        ({"triples": torch.tensor([[0, 2, 4]])}, "triples name relation 2, num_relations is 2"),
    ],
)
def test_values_that_do_not_fit_are_named(options, message):
    with pytest.raises(ArgumentError, match=message):
        make(**options)
