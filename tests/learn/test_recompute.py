from types import SimpleNamespace

import pytest
import torch
from test_sharing import DENSE, LATENT, groups

from aftershock import models
from aftershock.learn import Learner, pack, pack_documents, recompute
from aftershock.learn.predictor import Predictor
from aftershock.models.moe import Gate
from aftershock.recipe import LossTable, OptimTable


def stepped(config, how, precision="float32"):
    optim = OptimTable(recompute=how, precision=precision, clip_norm=1e9)
    learner = Learner(models.build(config, seed=0), optim, LossTable())
    metrics = [learner.step(pack(groups(), 120)) for _ in range(2)]
    return metrics, learner.model.state_dict()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", [DENSE, LATENT], ids=["dense", "latent"])
def test_layers_computed_again_give_the_same_bits(config, precision):
    (plain, kept), (again, weights) = (stepped(config, how, precision) for how in ("never", "always"))
    assert plain == again
    assert all(torch.equal(tensor, weights[name]) for name, tensor in kept.items())


def test_a_mixture_counts_a_token_once():
    model = models.build(LATENT, seed=0).train()
    (batch,) = pack(groups(), 10_000)
    with recompute.recomputed(model):
        model.hidden(batch.tokens[None], segments=batch.segments).sum().backward()
    (gate,) = [module for module in model.modules() if isinstance(module, Gate)]
    assert gate.counts.sum() == len(batch.tokens) * LATENT["num_experts_per_tok"]
    assert gate.training


def kept_bytes(model, batch):
    saved = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.hidden(batch.tokens[None], segments=batch.segments)
    assert hidden.requires_grad
    return sum(size for place, size in saved.items() if place not in weights)


def test_a_layer_keeps_its_input_alone():
    model = models.build({**DENSE, "num_hidden_layers": 6}, seed=0)
    (batch,) = pack(groups(), 10_000)
    whole = kept_bytes(model, batch)
    with recompute.recomputed(model):
        short = kept_bytes(model, batch)
    assert short < whole / 5
    assert kept_bytes(model, batch) == whole, "it outlived its block"


def test_auto_computes_again_where_a_batch_would_not_fit(monkeypatch):
    model = models.build(DENSE, seed=0)
    (batch,) = pack(groups(), 10_000)
    need = recompute._foretold(model, DENSE, batch, OptimTable())
    for bytes_there, tight in ((need / recompute.ROOM - 1, True), (need / recompute.ROOM + 1, False)):
        monkeypatch.setattr(recompute, "memory_bytes", lambda there=bytes_there: there)
        assert recompute.is_tight(model, batch, OptimTable()) is tight
        assert not recompute.is_tight(model, batch, OptimTable(recompute="never"))


def test_auto_counts_prediction_modules_where_they_are_trained():
    model = models.build(LATENT | {"num_nextn_predict_layers": 1}, seed=0)
    (batch,) = pack_documents([[1, 2, 3] * 20] * 1000, 100_000)
    plain, more = (recompute._foretold(model, model.config.to_dict(), batch, OptimTable(), on) for on in (False, True))
    assert more > 1.2 * plain
    assert Predictor(model, OptimTable(), 0.3).prediction
    assert not Learner(model, OptimTable()).prediction


def test_what_a_user_says_of_glibc_stands(monkeypatch):
    told = []
    monkeypatch.setattr(recompute.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=lambda *given: told.append(given)))
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    recompute._own_pages(7)
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    recompute._own_pages(8)
    assert told == [(-3, 7)]
