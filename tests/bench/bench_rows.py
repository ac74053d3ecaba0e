"""Rows and whole benches made by hand, for tests of scores, comparison and pages."""

import json
from dataclasses import asdict

from aftershock.address import generator
from aftershock.bench import store
from aftershock.bench.types import Answer, Protocol, Question, Row


def row(question="q0", sample=0, outcome="right", suite="sums", tokens=100, finish="stop", extracted="4", **more):
    """One judged sample. A failed request is `finish="failed"`, which is unverifiable and extracts nothing."""
    if finish == "failed":
        outcome, extracted, tokens = "unverifiable", None, 0
    answer = Answer(
        text=more.get("text", f"thinking</think>{extracted}"),
        reasoning=more.get("reasoning", "thinking"),
        answer=more.get("answer", str(extracted)),
        tokens=tokens,
        finish=finish,
        error=more.get("error", "HTTP 500" if finish == "failed" else ""),
    )
    return Row(suite, question, sample, answer, outcome, more.get("reason", ""), extracted)


def scripted(kind, rates, k, seed, suite="sums"):
    """Rows of a scripted model: `kind` is right (at each question's rate), truncated or flaky (half of it fails)."""
    rows = []
    for number, rate in enumerate(rates):
        for sample in range(k):
            draw = generator(seed, "scripted", number, sample)
            right = draw.random() < rate
            place = {"question": f"q{number}", "sample": sample, "suite": suite}
            if kind == "truncated":
                rows.append(row(**place, outcome="wrong", finish="length", extracted=None, tokens=512))
            elif kind == "flaky" and draw.random() < 0.5:
                rows.append(row(**place, finish="failed"))
            else:
                rows.append(row(**place, outcome="right" if right else "wrong", extracted="4" if right else "5"))
    return rows


def questions(n, suite="sums", prompt="What is 2 + 2? This is question number {i}."):
    return [Question(suite, f"q{i}", prompt.format(i=i), "4") for i in range(n)]


def write(folder, asked, rows, protocol=None, **header):
    """Write a bench's folder as the store lays it out, and read it back."""
    folder.mkdir(parents=True, exist_ok=True)
    protocol = protocol or Protocol(k=4)
    suites = [
        {"name": name, "title": name.title(), "n": len(part), "k": protocol.k, "data_sha256": "d" * 64,
         "prompt_sha256": "e" * 64, "source": "made by hand", "instruction": "Use a box.",
         "max_tokens": [protocol.max_tokens] * 2}
        for name, part in asked.items()
    ]  # fmt: skip
    model = {"name": "toy", "kind": "scripted", "weights_sha256": "a" * 64, "template_sha256": "b" * 64}
    head = {"schema": store.SCHEMA, "model": model, "protocol": asdict(protocol), "suites": suites,
            "versions": {"aftershock": "0"}, "command": "aftershock bench toy --suite sums"}  # fmt: skip
    (folder / store.HEADER).write_text(json.dumps({**head, **header}))
    for name, part in asked.items():
        place = folder / store.folder_name(name)
        place.mkdir(exist_ok=True)
        here = [one for one in rows if one.suite == name]
        for file, values in ((store.QUESTIONS, part), (store.ROWS, here)):
            lines = [json.dumps(asdict(value)) + "\n" for value in values]
            (place / file).write_text("".join(lines))
    return store.read(folder)
