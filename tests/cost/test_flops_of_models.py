"""FLOPs from config.json against torch's count of what the models really multiply.

torch's counter sees matrix products alone, and of attention's kernels only the plain one on a CPU: so that one is asked
for, and mixtures keep off the fused grouped product. It counts the whole square that the plain kernel computes.
"""

import pytest
import torch
from small_configs import CONFIGS
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode

from aftershock.cost import flops
from aftershock.learn import lora
from aftershock.learn.logprobs import chunked
from aftershock.models import build
from aftershock.models.native import build as build_c
from aftershock.recipe import LoraTable

TIME, ROWS = 40, 2
PREDICTING = {**CONFIGS["deepseek_v3 with q_lora_rank"], "num_nextn_predict_layers": 2}


@pytest.fixture(autouse=True)
def seen_by_torch(monkeypatch):
    """Nothing in C, which torch's counter doesn't see; and models this small lose by waiting for threads."""
    monkeypatch.setenv(build_c.SWITCH, "0")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tokens():
    return torch.randint(300, (ROWS, TIME), generator=torch.Generator().manual_seed(0))


def counted(job) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops()


def trained(model, tokens) -> int:
    return counted(lambda: model(tokens).sum().backward())


def within_one_percent(flops_a_token):
    return pytest.approx(flops_a_token * ROWS * TIME, rel=0.01)


@pytest.mark.parametrize("name", CONFIGS)
def test_forward_and_training(name, tokens):
    config = CONFIGS[name]
    model = build(config, seed=0)
    assert counted(lambda: model(tokens)) == within_one_percent(flops.forward(config, TIME))
    assert trained(model, tokens) == within_one_percent(flops.training(config, TIME))
    assert flops.training(config, TIME) == flops.TRAINING * flops.forward(config, TIME)


@pytest.mark.parametrize("name", CONFIGS)
def test_training_that_computes_layers_again(name, tokens):
    config = CONFIGS[name]
    model = build(config, seed=0)
    for layer in model.model.layers:
        plain = layer.forward
        layer.forward = lambda *given, plain=plain: checkpoint(plain, *given, use_reentrant=False)
    with set_checkpoint_early_stop(False):  # torch leaves out the last product, whose value nothing asks for again
        assert trained(model, tokens) == within_one_percent(flops.training(config, TIME, recompute=True))


@pytest.mark.parametrize("name", CONFIGS)
def test_training_whose_logits_come_in_chunks(name, tokens):
    config = CONFIGS[name]
    model = build(config, seed=0)

    def job():
        hidden = model.hidden(tokens).flatten(0, 1)
        chunked(model.logits, hidden, tokens.flatten(), chunk_bytes=4 * 300 * 16)[0].sum().backward()

    width = 2 * 300 * 64  # one position through the head, which tells how wide the logits are
    assert counted(job) - width == within_one_percent(flops.training(config, TIME, chunked=True))


@pytest.mark.parametrize("targets", [(), ("q_proj", "q_a_proj", "kv_a_proj_with_mqa", "v_proj", "down_proj")])
@pytest.mark.parametrize("name", CONFIGS)
def test_training_of_adapters(name, targets, tokens):
    config = CONFIGS[name]
    model = build(config, seed=0)
    lora.attach(model, LoraTable(rank=4, targets=targets), seed=0)
    assert trained(model, tokens) == within_one_percent(flops.training(config, TIME, rank=4, targets=targets))


def test_training_of_prediction_modules(tokens):
    model = build(PREDICTING, seed=0)

    def job():
        hidden = model.hidden(tokens)
        total, state = model.logits(hidden).sum(), hidden
        for depth in (1, 2):
            state = model.mtp_hidden(state, tokens, depth=depth)
            total = total + model.mtp_logits(state, depth).sum()
        total.backward()

    assert counted(job) == within_one_percent(flops.training(PREDICTING, TIME, prediction=True))


@pytest.mark.parametrize("name", CONFIGS)
def test_prefill_and_decoding_as_the_engine_does_them(name):
    # Many rows: in sampling, each expert's share of them is rounded up to a multiple of four.
    config, prompt, completion, many = CONFIGS[name], 20, 3, 1024
    model = build(config, seed=0)
    cache, rows = model.new_cache(many, prompt + completion), torch.arange(many)
    fed = torch.randint(300, (many, prompt + completion), generator=torch.Generator().manual_seed(0))
    held = prompt - 1

    def step(first, last):
        starts = torch.full((many,), first)
        return model.hidden(fed[:, first:last], cache=cache, rows=rows, starts=starts)

    square = many * held * config["num_hidden_layers"] * flops.attention(config) * (held - (held + 1) / 2)
    with torch.no_grad():
        read = counted(lambda: step(0, held))
        wrote = counted(lambda: [model.logits(step(held + t, held + t + 1)) for t in range(completion)])
    assert read - square == pytest.approx(many * flops.prefill(config, held), rel=0.01)
    # a cache is read in steps of so many positions, or to its end: more than the token may see
    beyond = many * sum(prompt + completion - (prompt + t) for t in range(completion))
    beyond *= config["num_hidden_layers"] * flops.attention(config, latent=True)
    assert wrote - beyond == pytest.approx(many * flops.decode(config, prompt, completion), rel=0.01)


def test_packed_sequences_attend_as_far_as_the_even_ones():
    config, lengths = CONFIGS["qwen3"], [7, 30, 12]
    each = sum(length * flops.training(config, (length + 1) / 2) for length in lengths)
    assert flops.work(config, flops.even(lengths), sum(lengths)).flops == pytest.approx(each)
