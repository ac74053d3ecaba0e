"""Bytes from config.json and a batch's shape, against what tensors and processes really take."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import peak_of_process as peak
import pytest
import torch
from small_configs import CONFIGS

from aftershock.cost import memory, parameters
from aftershock.generate import Engine, SamplingParams, decoder, rows
from aftershock.generate.engine import BYTES_A_LOGIT
from aftershock.known import known_config
from aftershock.learn import Learner, Sample, logprobs, pack
from aftershock.learn.predictor import Predictor
from aftershock.models import build, causal_lm, layers
from aftershock.models.native import build as native
from aftershock.models.native import step
from aftershock.recipe import LossTable, OptimTable
from aftershock.text import Tokenizer

LENGTHS = {"plain": [200, 180, 90, 90, 50, 30, 17], "fused too": [400, 420, 120, 60, 390]}
VOCAB = 300
NATIVE = native.library("train") is not None


def test_constants_are_those_of_the_code():
    assert (memory.BLOCKS, memory.SHORT, memory.CHUNK) == (layers._BLOCKS, layers._SHORT, logprobs.CHUNK_BYTES)
    assert (memory.ROWS, memory.POSITIONS, memory.STAGED) == (decoder.ROWS, decoder.POSITIONS, decoder.STAGED)
    assert (memory.PREFILL, memory.MOVED) == (decoder.PREFILL_TOKENS, causal_lm._MOVED)
    assert memory.LARGE == step._LARGE
    assert (memory.TOKEN_RECORD, memory.LOGIT_RECORD) == (rows.BYTES_A_TOKEN, BYTES_A_LOGIT)


@contextmanager
def saving(model):
    """Yield a table that gets the bytes of what is saved for a backward, weights apart, by storage."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    saved, found = [], {}
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda t: t):
        yield found
    storages = (tensor.untyped_storage() for tensor in saved)
    found.update({one.data_ptr(): one.nbytes() for one in storages if one.data_ptr() not in weights})


def kept(model, batch, half) -> int:
    """Return the bytes of what a forward saves for its backward."""
    with saving(model) as found, torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        logprobs.token_logprobs(model, batch.tokens, batch.segments, batch.mask)
    return sum(found.values())


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("name", CONFIGS)
def test_what_a_forward_keeps_is_foretold_almost_to_the_byte(name, lengths, half):
    config, scored = CONFIGS[name], sum(lengths) - 2 * len(lengths)
    samples = [Sample((1, i), (2,) * (n - 2), (0.0,) * (n - 2), 1.0) for i, n in enumerate(lengths)]
    (batch,) = pack(samples, 1 << 20)
    shape = memory.Shape.of(lengths, scored, native=NATIVE)
    foretold = memory.activations(config, shape, half) + scored * VOCAB * 4
    assert foretold == pytest.approx(kept(build(config, seed=0).train(), batch, half), rel=0.005)


class Enough(Exception):
    """Raised in place of a backward."""


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("modules", [1, 2])
def test_what_predictions_keep_is_foretold_almost_to_the_byte(modules, half, monkeypatch):
    def stop(*given):
        raise Enough

    monkeypatch.setattr(torch.Tensor, "backward", stop)
    config = {**CONFIGS["deepseek_v3 with q_lora_rank"], "num_nextn_predict_layers": modules}
    lengths = LENGTHS["fused too"]
    samples = [Sample((1, i), (2,) * (n - 2), (0.0,) * (n - 2), 1.0) for i, n in enumerate(lengths)]
    (batch,) = pack(samples, 1 << 20)
    model = build(config, seed=0).train()
    optim = OptimTable(precision="bfloat16" if half else "float32", recompute="never")
    shape = memory.Shape.of(lengths, int(batch.mask.sum()), native=NATIVE)
    foretold = memory.activations(config, shape, half, prediction=True)
    foretold += memory.logits(config, shape.scored, modules=modules) - shape.scored * VOCAB * 4  # no gradient as yet
    with saving(model) as found, pytest.raises(Enough):
        Predictor(model, optim, 0.3)._backward(batch)
    assert foretold == pytest.approx(sum(found.values()), rel=0.005)


@pytest.mark.parametrize("name", CONFIGS)
def test_training_state_is_what_the_learner_holds(name):
    model = build(CONFIGS[name], seed=0)
    learner = Learner(model, OptimTable(), LossTable())
    learner.step(pack([Sample((1,) * 9, (2,) * 9, (0.0,) * 9, 1.0)], 1 << 20))
    unused = [weight for weight in model.parameters() if weight.grad is None]
    moments = [t for state in learner.optimiser.state.values() for t in state.values() if t.ndim]
    held = [
        *model.parameters(),
        *moments,
        *unused,
        *unused,
        *(w.grad for w in model.parameters() if w.grad is not None),
    ]
    assert memory.training_state(CONFIGS[name]) == pytest.approx(sum(t.nbytes for t in held), rel=0.01)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    ("max_rows", "prompt", "longest", "completions"), [(64, 30, 100, 5), (5, 7, 9, 50), (1, 1, 1, 1)]
)
def test_sampling_reserves_what_the_engine_reserves(name, max_rows, prompt, longest, completions):
    model = build(CONFIGS[name], seed=0)
    engine = Engine(model, Tokenizer.load("src/aftershock/assets/nano"), max_rows=max_rows)
    reserved = engine.memory(SamplingParams(max_tokens=longest), prompt, completions)
    assert memory.sampling(CONFIGS[name], max_rows, prompt, longest, completions) == reserved
    filled = engine.memory(SamplingParams(max_tokens=longest), prompt)
    assert memory.sampling(CONFIGS[name], max_rows, prompt, longest) == filled


def test_published_sizes():
    r1, students = known_config("deepseek-ai/DeepSeek-R1"), known_config("deepseek-ai/DeepSeek-R1-Distill-Llama-70B")
    assert memory.cache(r1, 1, 1, 2) == 70_272  # 576 values in 61 layers: "70.272 KB" [arXiv 2505.09343, table 1]
    assert memory.cache(students, 1, 1, 2) == 327_680  # 8 heads of 128, keys and values, 80 layers
    assert memory.training_state(students) == 16 * parameters.total(
        students
    )  # 16 bytes a weight [ZeRO, 1910.02054, 3.1]
    assert memory.training_state(students, memory.ADAM_8BIT) < 10.1 * parameters.total(students)
    adapted = memory.training_state(students, rank=16)
    assert 8 * parameters.total(students) * 0.9 < adapted < 8.2 * parameters.total(students)


def largest(packed: list) -> memory.Shape:
    """Return the shape of the batch of the most tokens; a shared prompt is in the lengths of all its readers."""
    batch = max(packed, key=lambda batch: len(batch.tokens))
    shape = memory.Shape.of(batch.segments.lengths().tolist(), int(batch.mask.sum()), native=NATIVE)
    return replace(shape, tokens=len(batch.tokens))


def copied(config: dict) -> float:
    """Return the bytes of the native step's packed weights, where this machine has that step."""
    return memory.packed(config) if native.library() else 0.0


def foretold(name: str) -> float:
    if name in peak.SAMPLED:
        config, rows, prompts, length, longest = peak.SAMPLED[name]
        held = memory.sampled(config, rows, length, longest, rows, prompts, bool(native.library()))
        return memory.weights(config) + copied(config) + held
    if name in peak.STAGES:
        config, precision = peak.STAGES[name]
        lengths, prompts = [peak.PROMPT + peak.LONGEST] * peak.ROWS, peak.ROWS // peak.GROUP
        shape = memory.Shape.of(lengths, peak.ROWS * peak.LONGEST, native=NATIVE)
        shape = replace(shape, tokens=peak.ROWS * peak.LONGEST + prompts * peak.PROMPT)
        sampled = memory.sampled(
            config, peak.ROWS, peak.PROMPT, peak.LONGEST, peak.ROWS, prompts, bool(native.library())
        )
        trained = memory.training(config, shape, half=precision == "bfloat16", alone=True)
        return copied(config) + max(trained, memory.training_state(config) + sampled)
    config, groups, precision, again, rank, micro_tokens = peak.TRAINED[name]
    packed = peak.batches(groups, micro_tokens)
    how = {"half": precision == "bfloat16", "recompute": again, "rank": rank, "alone": len(packed) == 1}
    how["prediction"] = bool(config.get("num_nextn_predict_layers"))
    return memory.training(config, largest(packed), **how)


@pytest.mark.slow
def test_peaks_of_real_processes_are_foretold():
    # Every tensor of 64 KiB or more gets pages of its own, given back when it is freed: resident is what is alive.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    env["THP_MEM_ALLOC_ENABLE"] = "0"  # as a command that was run in this process has set it
    command = [sys.executable, "tests/cost/peak_of_process.py"]
    told = subprocess.run(command, env=env, capture_output=True, text=True, timeout=590, check=True).stdout
    measured = {line["name"]: line["bytes"] for line in map(json.loads, told.splitlines())}
    assert measured.keys() == {*peak.TRAINED, *peak.SAMPLED, *peak.STAGES}
    off = {name: foretold(name) / size - 1 for name, size in measured.items()}
    assert all(abs(error) < 0.1 for error in off.values()), off
