"""InductiveKGAT with a head that ranks the best candidates anew."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from cases.graphs import histories_of, planted_graph, with_attributes, with_content
from cases.model_case import KGATCase, recall, score
from cases.tiny_training import StubEvaluator, equal_weights, snapshot, tiny_config

from graphrec.encoders import SideFeatureEncoder
from graphrec.errors import ArgumentError, LongHistoryWarning
from graphrec.evaluation.topk import top_k
from graphrec.histories import Histories
from graphrec.models import Blend, CrossDomainKGAT, InductiveKGAT
from graphrec.models.ranking_head import RankingHead, Step
from graphrec.training import Trainer
from kg_loaders.graph import Feature

OPTIONS = {"dim": 16, "num_negatives": 60, "head": "mlp", "head_channels": 24, "head_dropout": 0.2, "rerank": 10}
SIDE = ["taste", "age", "hour"]


class TestHead(KGATCase):
    model_class = InductiveKGAT
    options: ClassVar = OPTIONS


class TestHeadOfMatched(KGATCase):
    model_class = InductiveKGAT
    options: ClassVar = {**OPTIONS, "match_temperature": 0.1, "hidden_only": True}


class TestHeadInOrder(KGATCase):
    model_class = InductiveKGAT
    options: ClassVar = {**OPTIONS, "sequence": 1, "max_length": 20, "dropout": 0.1}


class TestGRU(KGATCase):
    model_class = InductiveKGAT
    options: ClassVar = {**OPTIONS, "head": "gru", "max_length": 20}


class TestSideFeatures(KGATCase):
    model_class = InductiveKGAT
    options: ClassVar = {**OPTIONS, "side_features": SIDE}

    def make(self, graph, seed=0):
        return super().make(with_attributes(graph), seed)

    def test_strangers_are_served_or_refused(self, fitted):
        histories = histories_of(planted_graph()).select(torch.arange(6))
        strangers = score(fitted, histories.strangers())
        beyond = Histories(histories.items, histories.offsets, histories.user_index + 10**6, histories.times)
        assert torch.equal(score(fitted, beyond), strangers)
        assert strangers.isfinite().all()
        # Of user 0 the age is known, if not the taste.
        assert (score(fitted, histories) != strangers).any(dim=1).all()


def made(graph=None, **options):
    """A model whose weights are anything but small."""
    torch.manual_seed(0)
    graph = planted_graph() if graph is None else graph
    model = InductiveKGAT.from_graph(graph, **{**OPTIONS, **options})
    model.prepare(histories_of(graph))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(std=2.0 if name.startswith("head.match.") else 0.5)  # those are stored at another scale
    return model.eval()


def plain(model):
    """The same model without its head."""
    head, model.head = model.head, None
    return head


EVERY = pytest.mark.parametrize(
    "options",
    [
        {},
        {"head": "gru", "max_length": 20},
        {"sequence": 1, "max_length": 20},
        {"match_temperature": 0.1},
        {"untied": False, "side_features": SIDE},
    ],
)


@EVERY
def test_candidates_are_in_the_heads_order_above_all_others_in_theirs(options):
    graph = with_attributes(planted_graph())
    model, histories = made(graph, **options), histories_of(graph)
    scores = score(model, histories)
    of_head = torch.stack([model.score_item(histories, item).detach() for item in range(graph.num_items)], dim=1)
    plain(model)
    product = score(model, histories)
    changed = 0
    for row in range(len(histories)):
        unseen = torch.ones(graph.num_items, dtype=torch.bool)
        unseen[histories.items[histories.rows == row]] = False
        best = product[row].masked_fill(~unseen, -torch.inf).topk(10)
        asked = product[row] >= best.values[-1]
        assert int((asked & unseen).sum()) == 10
        torch.testing.assert_close(scores[row, asked], of_head[row, asked], rtol=1e-4, atol=1e-5)
        assert scores[row, asked].min() >= scores[row, ~asked].max()
        assert torch.equal(scores[row, ~asked].argsort(), product[row, ~asked].argsort())
        changed += not torch.equal(scores[row, best.indices].argsort(), product[row, best.indices].argsort())
    assert changed > 100


def test_a_head_that_adds_nothing_leaves_the_plain_product():
    model, histories = made(), histories_of(planted_graph())
    torch.nn.init.zeros_(model.head.match.lin_out.weight)
    scores = score(model, histories)
    plain(model)
    torch.testing.assert_close(scores, score(model, histories))


def test_all_items_may_be_candidates():
    model, histories = made(rerank=10**6), histories_of(planted_graph())
    scores = score(model, histories)
    for item in (0, 7, 79):
        torch.testing.assert_close(scores[:, item], model.score_item(histories, item).detach(), rtol=1e-4, atol=1e-5)


def test_without_a_history_the_head_has_nothing_to_go_by():
    model = made(with_attributes(planted_graph()), side_features=["taste"])
    # Of user 7 no attribute is known, of user 1 one is; the last is a stranger.
    empty = Histories.from_lists([[], [], [], [3]], [7, 1, -1, 2])
    for row in (0, 2):
        torch.testing.assert_close(score(model, empty)[row], model.bias().detach())
        torch.testing.assert_close(model.score_item(empty, 5)[row], model.bias()[5])
    assert (score(model, empty)[1] != model.bias()).sum() >= 10
    assert not torch.equal(score(model, empty)[1].topk(10).indices, model.bias().topk(10).indices)
    model = made()
    torch.testing.assert_close(score(model, Histories.from_lists([[]], [1]))[0], model.bias().detach())


def test_the_loss_is_the_softmax_of_targets_that_are_candidates_against_the_hardest_negatives():
    torch.manual_seed(0)
    head = RankingHead(4, "mlp", 8, num_candidates=2, max_length=5, dropout=0.0, side=None)
    torch.nn.init.normal_(head.match.lin_out.weight)
    user, item = F.normalize(torch.randn(2, 4), dim=1), F.normalize(torch.randn(3 + 5, 4), dim=1)
    # One of the targets scores far below all negatives, and another far above.
    bias, negatives = torch.tensor([9.0, -9.0, 9.0, 0.1, -0.2, 0.3, -0.4, 0.5]), torch.tensor([10, 11, 12, 13, 14])
    took = Histories.from_lists([[12, 3], [11, 14, 13, 10]])  # so the second has one rival only
    weights, rows, targets = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([1, 0, 0]), torch.tensor([2, 0, 1])
    step = Step(user, took, torch.randn(15, 4), took.items, item, bias, negatives, took, rows, targets, weights)
    found = head.loss(step, 0.5, torch.Generator())
    product = user @ item.t() / 0.5 + bias  # [2, 8]
    losses = []
    for row, target in ((1, 2), (0, 0)):
        mine = set(took.items[took.rows == row].tolist())
        free = [3 + place for place, negative in enumerate(negatives.tolist()) if negative not in mine]
        hardest = sorted(free, key=lambda column, row=row: -product[row, column])[:2]
        columns = torch.tensor([target, *hardest])
        at = torch.full_like(columns, row)
        logits = head(user, item, at, columns, product[row, columns], None)
        losses.append(F.cross_entropy(logits[None], torch.tensor([0])))
    torch.testing.assert_close(found, (losses[0] * 1.0 + losses[1] * 3.0) / 4.0)


@EVERY
def test_a_head_leaves_the_gradient_of_the_product_alone(options):
    graph = with_attributes(planted_graph())
    model, histories = made(graph, **{**options, "dropout": 0.0}).train(), histories_of(graph)
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model.loss(histories, torch.Generator().manual_seed(0)).backward()
        of_all = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        gradients.append({name: value for name, value in of_all.items() if not name.startswith("head.")})
        assert (len(of_all) > len(gradients[-1])) == (model.head is not None)
        plain(model)
    first, second = gradients
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], msg=name)


@pytest.mark.parametrize("options", [{}, {"match_temperature": 0.1}])
def test_the_head_learns_from_what_is_hidden_alone(options, monkeypatch):
    model = made(keep=0.5, **options).train()
    steps, loss = [], RankingHead.loss
    monkeypatch.setattr(RankingHead, "loss", lambda self, step, *args: steps.append(step) or loss(self, step, *args))
    histories = histories_of(planted_graph())
    model.loss(histories, torch.Generator().manual_seed(0))
    shown = torch.rand(histories.items.numel(), generator=torch.Generator().manual_seed(0)) < 0.5
    (step,) = steps
    assert step.targets.tolist() == (~shown).nonzero().squeeze(1).tolist()
    assert torch.equal(step.rows, histories.rows[~shown])


def test_of_a_new_user_only_attributes_are_told():
    past = Histories.from_lists([[0, 1], [2], [1, 2]], [4, 5, 6])
    rows, targets = torch.tensor([0, 2, 2]), torch.tensor([1, 0, 2])
    matched = torch.ones(3), torch.ones(3, 2)
    step = Step(
        torch.ones(3, 4), past, torch.ones(3, 4), past.items, torch.ones(5, 4), torch.ones(5), torch.tensor([7, 8]),
        past, rows, targets, torch.ones(3), matched,
    )  # fmt: skip
    new = step.as_new(torch.tensor([False, False, True]))
    assert new.user.tolist() == [[1.0] * 4, [1.0] * 4, [0.0] * 4]
    assert (new.past.lengths.tolist(), new.past.user_index.tolist()) == ([2, 1, 0], [4, 5, 6])
    assert new.places.tolist() == [0, 1, 2]
    assert new.matched[0].tolist() == [1.0, 0.0, 0.0]
    assert new.matched[1].tolist() == [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    assert new.took is past


def test_a_new_user_is_ranked_for_by_taste():
    graph = with_attributes(planted_graph())
    case = TestSideFeatures()
    case.options = {**OPTIONS, "side_features": ["taste"], "rerank": 80}
    case.epochs = 60  # a tenth of the users of a step are new
    model = case.fit(graph)
    users = torch.tensor([user for user in range(graph.num_users) if user % 7])
    new = Histories.from_lists([[] for _ in users], users.tolist())
    top, _ = top_k(score(model, new), 10, new)
    own = (torch.arange(graph.num_items) % 4 == (users % 4)[:, None]) & model.taken
    assert own.gather(1, top).double().mean() > 0.9


def test_in_order_the_head_is_asked_one_next_item_a_user(monkeypatch):
    model = made(sequence=1, max_length=20, dropout=0.0).train()
    steps, loss = [], RankingHead.loss
    monkeypatch.setattr(RankingHead, "loss", lambda self, step, *args: steps.append(step) or loss(self, step, *args))
    histories = histories_of(planted_graph())
    model.loss(histories, torch.Generator().manual_seed(0))
    (step,) = steps
    assert len(step.user) == len(histories) == len(step.targets.unique())
    read, follows = histories.in_order().next_items(20)
    assert torch.equal(step.took.user_index, read.user_index[read.rows[step.targets]])
    wanted = histories.in_order().items[follows][step.targets]
    units = F.normalize(model.item_vectors()[1], dim=1)[wanted]
    torch.testing.assert_close(step.item[step.targets], units)


@pytest.mark.parametrize(
    "options",
    [{}, {"head": "gru", "max_length": 20}, {"match_temperature": 0.1}, {"sequence": 1, "max_length": 20}],
)
def test_a_step_that_makes_few_rows_equals_one_that_makes_all(options, monkeypatch):
    model = made(dropout=0.0, head_dropout=0.0, num_negatives=20, **options).double()
    histories = histories_of(planted_graph()).select(torch.tensor([3, 50, 7]))
    results = []
    for rows_of in (InductiveKGAT._rows_of, lambda self, items: (None, items)):
        monkeypatch.setattr(InductiveKGAT, "_rows_of", rows_of)
        model.zero_grad()
        loss = model.loss(histories, torch.Generator().manual_seed(1))
        loss.backward()
        results.append((loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (few_loss, few), (all_loss, every) = results
    torch.testing.assert_close(few_loss, all_loss)
    assert few.keys() == every.keys()
    for name, gradient in every.items():
        torch.testing.assert_close(few[name], gradient, msg=name)


def test_the_gru_reads_the_most_recent_items_in_order():
    torch.manual_seed(0)
    head = RankingHead(4, "gru", 6, num_candidates=2, max_length=3, dropout=0.0, side=None)
    h = torch.randn(9, 4)
    times = torch.tensor([9, 5, 7, 8, 1, 2], dtype=torch.float64)
    batch = Histories(torch.tensor([0, 1, 2, 3, 4, 5]), torch.tensor([0, 4, 4, 6]), times=times)
    states = head.context(batch, h, batch.items + 3)
    expected = [head.recent(h[items][None] * 2)[0][0, -1] for items in ([5, 6, 3], [7, 8])]
    torch.testing.assert_close(states, torch.stack([expected[0], torch.zeros(6), expected[1]]))
    no_users = Histories.from_lists([])
    assert head.context(no_users, h, no_users.items).shape == (0, 6)


def test_a_gru_that_reads_a_part_of_a_history_says_so_once():
    model = InductiveKGAT.from_graph(planted_graph(), **{**OPTIONS, "head": "gru"}, max_length=5)
    with pytest.warns(LongHistoryWarning, match=r"InductiveKGAT reads the 5 most recent items .* of 120 are longer"):
        model.prepare(histories_of(planted_graph()))
    model.prepare(histories_of(planted_graph()))  # a second warning would be an error
    InductiveKGAT.from_graph(planted_graph(), **OPTIONS, max_length=5).prepare(histories_of(planted_graph()))


def test_a_known_taste_ranks_for_a_user_whose_history_tells_little():
    graph = with_attributes(planted_graph())
    case = TestSideFeatures()
    case.options = {**OPTIONS, "side_features": ["taste"], "keep": 0.1, "rerank": 80}
    model = case.fit(graph)
    users = torch.tensor([user for user in range(graph.num_users) if user % 7])
    # One item of another genre than the user's is all that is known.
    wrong = Histories.from_lists([[(user + 1) % 4] for user in users.tolist()], users.tolist())
    own = (torch.arange(graph.num_items) % 4 == (users % 4)[:, None]) & model.taken
    shares = []
    for asked in (wrong, wrong.strangers()):
        top, _ = top_k(score(model, asked), 10, asked)
        shares.append(own.gather(1, top).double().mean().item())
    known, stranger = shares
    assert known > 2 * stranger


def test_a_run_stopped_at_any_time_and_resumed_equals_one_run(tmp_path):
    graph = with_attributes(planted_graph())
    config = tiny_config(epochs=2, batch_size=50, checkpoint_minutes=1e-9, refit=False, learning_rate=0.01)

    class Crash(Exception):
        pass

    def fit(run_dir, crash_at=0):
        torch.manual_seed(0)
        model = InductiveKGAT.from_graph(graph, **OPTIONS, side_features=SIDE)
        losses, loss = [], model.loss

        def counted(*arguments):
            losses.append(1)
            if len(losses) == crash_at:
                raise Crash
            return loss(*arguments)

        model.loss = counted
        Trainer(config, seed=3, quiet=True).fit(model, graph, StubEvaluator(), run_dir)
        return snapshot(model)

    whole = fit(None)
    for step in (2, 5):
        folder = tmp_path / str(step)
        with pytest.raises(Crash):
            fit(folder, crash_at=step)
        assert equal_weights(fit(folder), whole)


def test_a_blend_of_models_with_heads_ranks():
    graph = planted_graph()
    torch.manual_seed(0)
    model = Blend.from_graph(graph, l2=10.0, match_temperature=0.1, **OPTIONS)
    assert model.first.first.head is not None
    model.prepare(histories_of(graph))
    model.complete(histories_of(graph))
    assert recall(score(model.eval(), histories_of(graph)), graph) > 0


@pytest.mark.parametrize("options", [{}, {"match_temperature": 0.1}, {"untied": False}])
def test_the_effect_of_a_modality_is_what_the_score_loses_without_it(options):
    graph = with_content(planted_graph())
    model = made(graph, modalities=["image", "audio"], **options)
    history = Histories.from_lists([[2, 7]])
    with torch.no_grad():
        effects = model.modality_effects(history, 3)
        before = model.score_item(history, 3)[0]
        model.modalities.present0[3] = False
        model.forget()
        without = model.score_item(history, 3)[0]
    assert effects["image"] == pytest.approx(float(before - without), abs=1e-4)


def test_no_user_has_a_parameter():
    graph = with_attributes(planted_graph())
    model = InductiveKGAT.from_graph(graph, **OPTIONS, side_features=SIDE)
    assert not [name for name, value in model.state_dict().items() if graph.num_users in value.shape]


def test_what_does_not_fit_is_named():
    graph = with_attributes(planted_graph())

    def make(graph=graph, **options):
        return InductiveKGAT.from_graph(graph, **{"dim": 8, **options})

    with pytest.raises(ArgumentError, match=r"head must be one of 'mlp', 'gru', got 'mpl'; did you mean 'mlp'\?"):
        make(head="mpl")
    with pytest.raises(ArgumentError, match=r"side_features \['taste'\] need a head to read them"):
        make(side_features=["taste"])
    with pytest.raises(ArgumentError, match=r"among those of planted \('taste', .*\), got 'gender'"):
        make(head="mlp", side_features=["gender"])
    with pytest.raises(ArgumentError, match="head must be 'mlp' with sequence=1, got 'gru'"):
        make(head="gru", sequence=1)
    timeless = replace(graph, interactions=replace(graph.interactions, time=None))
    with pytest.raises(ArgumentError, match="head='gru' reads histories in order, and graph 'planted' has no times"):
        make(timeless, head="gru")
    for name in ("head_channels", "rerank"):
        with pytest.raises(ArgumentError, match=f"{name} must be >= 1, got 0"):
            make(head="mlp", **{name: 0})
    with pytest.raises(ArgumentError, match="head must be None in CrossDomainKGAT, got 'mlp'"):
        CrossDomainKGAT.from_graph(graph, dim=8, head="mlp")
    side = SideFeatureEncoder({"taste": Feature.text(["a"] * 5)})
    with pytest.raises(ArgumentError, match="need a head"):
        InductiveKGAT(4, 0, torch.empty(0, 3, dtype=torch.int64), side=side)
