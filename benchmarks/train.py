"""Tokens a second of training, ours packed against transformers with accelerate on padded batches, and the share of
the machine's matrix peak that ours reaches.

    python benchmarks/train.py [--small] [--only float32] [--rounds 7] [--threads 1] [--json] [--out FILE]

The shipped small-qwen, next-token prediction on the same 16,384 made-up tokens a step, in documents of 20 to 200; one
AdamW step (fused on both sides), gradients clipped to 1, the same precision and threads. Their batches have 32 rows:
`padded` takes documents as they come, `grouped` sorts them by length first, which Trainer calls group_by_length.
All in processor time over all threads, which a busy machine changes less than the clock's. The limit is a product of
two 2,048 x 2,048 matrices in the same precision, measured in the same rounds. FLOPs are the model's: what a kernel
spends on masked attention, and on the head's second forward, is not counted.
"""

import random
import time
from collections.abc import Callable

import paired
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import AutoModelForCausalLM

from aftershock.cost import flops
from aftershock.learn import Learner, pack_documents
from aftershock.models import load
from aftershock.recipe import OptimTable
from aftershock.sources import shipped_base

TOKENS, ROWS, RATE, SIDE = 16_384, 32, 1e-5, 2_048


def documents() -> list[list[int]]:
    """Return the documents of a step."""
    rng, made, left = random.Random(0), [], TOKENS
    while left > 0:
        made.append([rng.randrange(512) for _ in range(rng.randint(20, 200))])
        left -= len(made[-1])
    return made


def ours(precision: str, given: list[list[int]]) -> Callable[[], object]:
    """Return our step."""
    learner = Learner(load(shipped_base("small-qwen"), dtype=torch.float32), OptimTable(lr=RATE, precision=precision))
    return lambda: learner.step(pack_documents(given, 4096))


def theirs(precision: str, given: list[list[int]]) -> Callable[[], object]:
    """Return the step of a training loop as accelerate's documentation writes it."""
    AcceleratorState._reset_state()  # it holds one precision a process
    accelerator = Accelerator(cpu=True, mixed_precision="bf16" if precision == "bfloat16" else "no")
    model = AutoModelForCausalLM.from_pretrained(shipped_base("small-qwen"), dtype=torch.float32).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), fused=True)
    model, optimiser = accelerator.prepare(model, optimiser)
    batches = [padded(given[start : start + ROWS]) for start in range(0, len(given), ROWS)]
    count = sum(int((batch["labels"][:, 1:] >= 0).sum()) for batch in batches)

    def step() -> None:
        for batch in batches:
            accelerator.backward(model(**batch, num_items_in_batch=count).loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


def padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """Return rows filled up to the longest, which neither attention nor loss sees."""
    longest = max(map(len, rows))

    def filled(value: int, of: Callable[[list[int]], list[int]]) -> torch.Tensor:
        return torch.tensor([of(row) + [value] * (longest - len(row)) for row in rows])

    seen = filled(0, lambda row: [1] * len(row))
    return {"input_ids": filled(0, list), "attention_mask": seen, "labels": filled(-100, list)}


def product(precision: str) -> Callable[[], object]:
    """Return the product that stands for the machine's peak."""
    one, other = (torch.randn(SIDE, SIDE).to(getattr(torch, precision)) for _ in range(2))
    return lambda: one @ other


def timed(call: Callable[[], object]) -> Callable[[], float]:
    """Return a call that tells the seconds of processor time it took; the first one isn't counted."""
    call()

    def run() -> float:
        began = time.process_time()
        call()
        return time.process_time() - began

    return run


def measure(precision: str, rounds: int) -> list[paired.Row]:
    """Return a precision's rows: against both kinds of their batches, and the share of the peak."""
    given = documents()
    tokens = sum(map(len, given))
    sides = {
        "ours": ours(precision, given),
        "padded": theirs(precision, given),
        "grouped": theirs(precision, sorted(given, key=len)),
        "limit": product(precision),
    }
    told = paired.alternate({name: timed(call) for name, call in sides.items()}, rounds)
    speed = {name: [tokens / seconds for seconds in told[name]] for name in ("ours", "padded", "grouped")}
    config = load(shipped_base("small-qwen")).config.to_dict()
    a_token = flops.training(config, (flops.even([len(one) for one in given]) + 1) / 2) / 1e9
    limit = [2 * SIDE**3 / seconds / 1e9 for seconds in told["limit"]]
    return [
        *(
            paired.compare(f"train {precision} {name}", speed["ours"], speed[name], "tokens/s")
            for name in ("padded", "grouped")
        ),
        paired.compare(f"train {precision} share of peak", [a_token * one for one in speed["ours"]], limit, "GFLOP/s"),
    ]


def main() -> None:
    given = paired.parser(__doc__).parse_args()
    torch.set_num_threads(given.threads)
    before, found = paired.machine(given.threads), []
    for precision in ("float32",) if given.small else ("float32", "bfloat16"):
        if given.only in precision:
            for row in measure(precision, given.rounds or 7):
                paired.tell(row)
                found.append(row)
            paired.report(found, given, before, done=False)
    paired.report(found, given, before)


if __name__ == "__main__":
    main()
