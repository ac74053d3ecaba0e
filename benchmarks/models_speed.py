"""How many tokens a second the nano deepseek_v3 decodes and trains on this machine's CPU.

    python benchmarks/models_speed.py [--threads 2] [--seconds 3] [--compile]

Decoding: one token a row over about 100 cached ones, float32. Training: forward and backward of the next-token loss
over a packed row of 16,384 tokens, mean length 100; float32 and bfloat16 autocast; compiled too with --compile.
"""

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from aftershock.models import CausalLM, Segments, build

NANO = {
    "model_type": "deepseek_v3",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 384,
    "moe_intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "kv_lora_rank": 48,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "tie_word_embeddings": True,
    "max_position_embeddings": 1024,
}
TOKENS = 16384


def seconds_each(work: Callable[[], object], budget: float) -> float:
    """Return the least seconds of a call within about `budget` seconds, after one call to warm up."""
    work()
    best, end = float("inf"), time.perf_counter() + budget
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def decode_step(model: CausalLM, rows: int) -> Callable[[], Tensor]:
    """Return a function that decodes one token in each of `rows` rows of 60 to 140 cached tokens."""
    cache = model.new_cache(rows, 256)
    starts = torch.linspace(60, 140, rows).long()
    tokens = torch.randint(0, 512, (rows, 1), generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def step() -> Tensor:
        return model.logits(model.hidden(tokens, cache=cache, starts=starts)[:, -1])

    return step


def packed_batch(total: int) -> tuple[Tensor, Segments]:
    """Return tokens Long[1, total] and segments of 20 to 180 tokens."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(20, 181, (total // 20,), generator=draw)
    bounds = F.pad(lengths.cumsum(0), (1, 0))
    bounds = torch.cat((bounds[bounds < total], torch.tensor([total])))
    return torch.randint(0, 512, (1, total), generator=draw), Segments(bounds, int(bounds.diff().max()))


def train_step(model: CausalLM, *, bf16: bool, compiled: bool) -> Callable[[], None]:
    """Return a function that runs forward and backward over one packed batch."""
    tokens, segments = packed_batch(TOKENS)
    targets = tokens.roll(-1, 1).flatten()
    if compiled:  # by block, since how segments are laid out is decided outside the graph
        for block in model.model.layers:
            block.compile(dynamic=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(tokens, segments=segments)
        F.cross_entropy(logits.flatten(0, 1).float(), targets).backward()
        model.zero_grad()

    return step


def main() -> None:
    """Print one line for each measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--compile", action="store_true", help="also compiled, which takes minutes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = build(NANO, seed=0)
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {arguments.threads} threads, "
        f"torch {torch.__version__}"
    )
    for rows in (64, 256):
        taken = seconds_each(decode_step(model.eval(), rows), arguments.seconds)
        print(f"decode {rows:4} rows: {rows / taken:8,.0f} tokens/s, {taken * 1e3:.2f} ms a step")
    for compiled in (False, True) if arguments.compile else (False,):
        for bf16 in (False, True):
            work = train_step(build(NANO, seed=0).train(), bf16=bf16, compiled=compiled)
            taken = seconds_each(work, arguments.seconds)
            kind = f"{'bfloat16' if bf16 else 'float32'}, {'compiled' if compiled else 'eager'}"
            print(f"train {TOKENS} tokens, {kind}: {TOKENS / taken:8,.0f} tokens/s, {taken:.2f} s a step", flush=True)


if __name__ == "__main__":
    main()
