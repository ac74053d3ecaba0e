"""Where drafting with a model's own prediction module pays: a step's cost with drafts against a plain one, by rows.

    python benchmarks/speculation.py --threads 1 --rounds 5 [--wide] [--out FILE]

Processor time, the two in turn. Drafts are refused at first, so that both sides take as many steps as tokens: the ratio
is a step's price, and drafting pays where a forward gives more tokens than that. The model is the shipped road-base and
a module trained on its own completions, the rest frozen, and what a forward gives is measured too. Whole calls aren't
timed: with drafts a seed draws other completions, whose lengths tell more than the pace. `--wide` takes 12 layers of
768 with random weights, for the price alone. AFTERSHOCK_NATIVE=0 makes plain steps PyTorch's, as drafting ones are.
"""

import argparse
import json
import time
from pathlib import Path
from unittest import mock

import torch
from paired import alternate, compare

from aftershock.generate import Completion, Engine, SamplingParams, speculation
from aftershock.learn import Predictor, pack_documents
from aftershock.models import CausalLM, build, load
from aftershock.pipeline.evaluate import heldout, prompt_tokens
from aftershock.recipe import OptimTable
from aftershock.sources import shipped_base
from aftershock.tasks import task
from aftershock.text import Tokenizer

WIDE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "intermediate_size": 2048,
    "moe_intermediate_size": 512,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "kv_lora_rank": 256,
    "initializer_range": 0.02,
}
LENGTHS = {1: 16, 8: 12, 64: 6}  # tokens a row where a step's price is measured
STEPS, SHARE = 120, 0.8  # of the module's training; of the samples, the rest is what acceptance is measured on


def main() -> None:
    """Measure what the command line asks for and print it, a line a comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wide", action="store_true", help="12 layers of 768, random")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = Tokenizer.load(shipped_base("road-base"))
    prompts = [prompt_tokens(tokenizer, one.prompt) for one in heldout([task("countdown", 2)], 256)]
    model = with_module(WIDE if args.wide else {})
    told: dict[str, float] = {}
    if not args.wide:
        told = teach(model, tokenizer, prompts)
        told |= kept(model, tokenizer, prompts, 1) | kept(model, tokenizer, prompts, 2)
    for name, value in told.items():
        print(f"{name}: {value:.3f}", flush=True)
    rows = [price(model, tokenizer, prompts, count, draft, args.rounds) for count in LENGTHS for draft in (1, 2)]
    if args.out:
        args.out.write_text(json.dumps({"told": told, "rows": [vars(row) for row in rows]}, indent=1) + "\n")


def with_module(change: dict) -> CausalLM:
    """Return the road model with a prediction module of random weights, or a random one of other sizes."""
    shipped = load(shipped_base("road-base"))
    model = build({**shipped.config.to_dict(), **change, "num_nextn_predict_layers": 1}, seed=0)
    if not change:
        model.load_state_dict(shipped.state_dict(), strict=False)
    return model


def teach(model: CausalLM, tokenizer: Tokenizer, prompts: list[list[int]]) -> dict[str, float]:
    """Train the module alone on the model's own completions."""
    params = SamplingParams(n=4, max_tokens=224, seed=1)
    groups = Engine(model, tokenizer, max_rows=256).generate(prompts[: int(SHARE * len(prompts))], params)
    drawn = [one for group in groups for one in group]
    model.requires_grad_(False)
    model.model.mtp.requires_grad_(True)
    learner = Predictor(model, OptimTable(lr=3e-3, warmup=10, schedule="cosine", balance_rate=0.0), 1.0, STEPS)
    told: dict[str, float] = {}
    for step in range(STEPS):
        told = learner.step(documents([drawn[(step * 16 + i) % len(drawn)] for i in range(16)]))
    model.requires_grad_(True)
    return {"mtp_loss": told["mtp_loss"], "mtp_acceptance": told["mtp_acceptance"]}


def documents(drawn: list[Completion]) -> list:
    """Return completions as batches whose loss is on what was drawn."""
    masks = [[False] * len(one.prompt_tokens) + [True] * len(one.tokens) for one in drawn]
    return pack_documents([[*one.prompt_tokens, *one.tokens] for one in drawn], 16384, masks)


def price(model: CausalLM, tokenizer: Tokenizer, prompts: list, rows: int, draft: int, rounds: int):
    """Return the row of a step with refused drafts against a plain one, in seconds; a short prefill is in both."""
    length, never = LENGTHS[rows], {tokenizer.eos: -1e4}
    asked, engine = [prompt[:16] for prompt in prompts[:rows]], Engine(model, tokenizer, max_rows=rows)

    def side(drafts: int) -> float:
        with mock.patch.object(speculation, "judge", refused):
            return timed(engine, asked, SamplingParams(max_tokens=length, logit_bias=never, draft=drafts))[0] / length

    return shown(f"step of {rows} rows, {draft} drafted", side, draft, rounds)


def refused(target, drafts, offered, accept, last) -> speculation.Judged:
    """Judge as always, and keep the first token alone."""
    judged = _JUDGE(target, drafts, offered, accept, last)
    return speculation.Judged(judged.tokens, torch.ones_like(judged.counts))


_JUDGE = speculation.judge


def kept(model: CausalLM, tokenizer: Tokenizer, prompts: list, draft: int) -> dict[str, float]:
    """Return the tokens that a forward gives on prompts not trained on: a step's price must be lower to pay."""
    held = prompts[int(SHARE * len(prompts)) :]
    params = SamplingParams(n=2, max_tokens=224, seed=2, draft=draft)
    drawn = timed(Engine(model, tokenizer), held, params)[1]
    return {f"tokens a forward, {draft} drafted": sum(len(c.tokens) for c in drawn) / sum(c.forwards for c in drawn)}


def timed(engine: Engine, asked: list, params: SamplingParams) -> tuple[float, list[Completion]]:
    """Return the processor seconds of a call, and what it drew."""
    began = time.process_time()
    groups = engine.generate(asked, params)
    return time.process_time() - began, [one for group in groups for one in group]


def shown(name: str, side, draft: int, rounds: int):
    """Measure `side` with drafts and without in turn; print and return the comparison."""
    side(draft), side(0)
    sides = alternate({"drafts": lambda: side(draft), "plain": lambda: side(0)}, rounds)
    row = compare(name, sides["drafts"], sides["plain"], "s", 5)
    print(f"{name}: {row.ratio:.2f}x as fast [{row.low:.2f}, {row.high:.2f}], n = {rounds}", flush=True)
    return row


if __name__ == "__main__":
    main()
