"""The table at a run's end: what each stage added and cost, models side by side, in 120 columns."""

from aftershock.table import bench, outcome

TASKS = ("countdown", "arithmetic", "remainders", "programs", "facts", "instructions", "help", "harm")
MODELS = (
    "road-base",
    "zero",
    "cold",
    "reasoning",
    "tuned",
    "final",
    "student-qwen",
    "student-llama",
    "logits",
    "control",
)


def measured(suite: str, metric: str, when: str, value: float, n: int = 60) -> dict:
    shares = {"value": value, "low": value / 2, "high": value}
    return {"suite": suite, "metric": metric, "when": when, **shares, "n": n, "k": 4, "seed": 7}


def evals(when: str, tasks: tuple[str, ...] = TASKS) -> list[dict]:
    suites = [*tasks, *(["all"] if len(tasks) > 1 else [])]
    found = []
    for suite in suites:
        n = 60 * (len(tasks) if suite == "all" else 1)
        found += [measured(suite, name, when, 1.0, n) for name in ("pass@1", "language_consistency", "readable_rate")]
        found += [measured(suite, "quality", when, 0.75, n)] if suite in ("help", "harm") else []
        found += [measured(suite, "mean_tokens", when, 255.6, n)]
    return found


def stage(name: str, kind: str, found: list[dict]) -> dict:
    return {"name": name, "kind": kind, "seconds": 1234.5, "tokens": 12345678, "usd": 0.0123, "evals": found}


def test_the_whole_roads_table_fits_120_columns_and_adds_up():
    trained = [stage(name, "reward_model", evals("before") + evals("after")) for name in MODELS]
    table = stage("table", "bench", [one for name in MODELS for one in evals(name)])
    text = outcome({"stages": [*trained, table]})
    assert max(map(len, text.splitlines())) <= 120
    assert "\nall " in text
    assert next(line for line in text.splitlines() if line.startswith("all ")).split()[1:] == [
        *("13,580", "135,802,458", "0.1353")
    ]
    assert text.splitlines()[1].split() == ["road-base", "reward_model", *["100.0%", "[50.0,", "100.0]"] * 2] + [
        *("480", "4", "1,234", "12,345,678", "0.0123")
    ]


def test_models_stand_side_by_side_with_what_they_share_said_once():
    _, _, asked, first, second, below = bench([*evals("zero"), *evals("final")]).splitlines()
    assert asked.split() == ["n", *["60"] * 8, "480"]
    quality = ["75.0"] * 2
    assert first.split() == ["zero", *["100.0"] * 6, *quality, "100.0", "[50.0,", "100.0]", "100.0", "100.0", "256"]
    assert second.startswith("final")
    assert "true quality of help, harm" in below
    assert "k = 4 samples of each, seed 7" in below


def test_one_task_has_its_interval_and_a_model_without_reasoning_a_dash():
    silent = [m for m in evals("base", ("facts",)) if m["metric"] != "language_consistency"]
    _, heads, _, _, base, _ = bench([*evals("zero", ("facts",)), *silent]).splitlines()
    assert heads.split() == ["model", "facts", "uage", "able", "tokens"]
    assert base.split() == ["base", "100.0", "[50.0,", "100.0]", "-", "100.0", "256"]


def test_a_reward_model_shows_its_accuracy_and_a_stage_that_measures_nothing_a_dash():
    told = outcome({"stages": [stage("helpful", "reward_model", [measured("all", "accuracy", "after", 0.9)])]})
    assert "90.0% [45.0, 90.0]" in told
    assert "\nall " not in told
    assert outcome({"stages": [stage("data", "sample", [])]}).splitlines()[1].split()[2:4] == ["-", "-"]
