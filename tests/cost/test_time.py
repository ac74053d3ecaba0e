"""The roofline by hand, rules that hold for all jobs, and how far estimates are off for runs they never saw."""

import subprocess
import sys
from dataclasses import astuple, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftershock.cost import calibration, decoding, flops, ranges, time
from aftershock.cost.cluster import Cluster, chip, parse
from aftershock.cost.decoding import Engine, sampler, sampling
from aftershock.cost.layout import Layout
from aftershock.cost.lengths import Lengths
from aftershock.cost.time import Efficiency, Training, parts, training
from aftershock.errors import CapacityError
from aftershock.known import known_config

V3, QWEN = known_config("deepseek-ai/DeepSeek-V3"), known_config("Qwen/Qwen2.5-7B")
IDEAL = Efficiency(1, 1, 0, 1)
lengths = st.builds(Lengths, mean=st.floats(50, 4000), cap=st.sampled_from([4096, 32768]), sigma=st.floats(0.2, 1.2))


@pytest.mark.parametrize("config", [V3, QWEN], ids=["V3", "Qwen"])
@pytest.mark.parametrize("recompute", [False, True])
def test_parts_hold_all_operations(config, recompute):
    split = time.split(config, 4096, recompute, True)
    assert sum(split) == pytest.approx(flops.training(config, 2048, recompute=recompute, prediction=True))
    assert all(part >= 0 for part in split)


def test_one_ideal_chip_computes_at_its_peak_and_sends_nothing():
    spent = parts(QWEN, parse("H100"), Layout(), Training(2048, 1e6))
    assert spent.seconds(IDEAL) == pytest.approx(1e6 * flops.training(QWEN, 1024) / 989e12)
    assert spent.traffic == spent.bubble == 0


def test_traffic_by_hand():
    cluster = Cluster(chip("H800"), 2048)
    # V3's 64 experts' chips are 8 nodes: a token reaches 4 of them, 7 of 8 of these elsewhere, in FP8 there (7,168
    # bytes) and in bfloat16 back, in 58 layers, forward and backward, at 0.8 of 50 GB/s.
    seconds = time.expert_traffic(V3, cluster, Layout(128, 1, 64, 16), "fp8")
    assert seconds == pytest.approx(2 * 58 * 7168 * 3 * 4 * 7 / 8 / 40e9)
    free = time.expert_traffic({**V3, "topk_group": 8}, cluster, Layout(128, 1, 64, 16), "fp8")
    assert free > seconds  # node-limited routing spares the network
    # within a node each of 8 experts is sent to, 7 of 8 of them on another chip, over 160 GB/s
    within = time.expert_traffic(V3, cluster, Layout(128, 1, 8, 16), "fp8")
    assert within == pytest.approx(2 * 58 * 7168 * 3 * 8 * 7 / 8 / 160e9)
    # Megatron's four sums a layer, each chip's part moved (8 - 1) times 2 / 8 by every one of 8
    assert time.tensor_traffic(QWEN, chip("H800"), Layout(tensor=8)) == pytest.approx(28 * 4 * 2 * 7 * 3584 * 2 / 160e9)
    assert time.data_traffic(QWEN, parse("8xH800"), Layout(8), 4e6) == pytest.approx(2 * 7615616512 * 2 / 160e9)


def test_a_prediction_module_is_a_layer_more_everywhere():
    """V3's module is the like of its 58 sparse layers: in traffic, in what lies between products, in what is held."""
    cluster, here = Cluster(chip("H800"), 2048), Layout(128, 1, 64, 16)
    longer = {**V3, "num_hidden_layers": 62, "num_nextn_predict_layers": 0}
    assert time.values(V3, 1) == time.values(longer)
    for traffic in (
        time.expert_traffic(V3, cluster, here, "fp8", 1),
        time.expert_traffic(longer, cluster, here, "fp8"),
    ):
        assert traffic == pytest.approx(59 / 58 * time.expert_traffic(V3, cluster, here, "fp8"))
    tensor = [
        time.tensor_traffic(each, cluster.chip, Layout(tensor=8), modules=n) for each, n in ((V3, 1), (longer, 0))
    ]
    assert tensor[0] == pytest.approx(tensor[1])
    plain, ahead = (parts(V3, cluster, here, Training(4096, prediction=wanted)) for wanted in (False, True))
    assert ahead.traffic > plain.traffic
    assert ahead.touched / plain.touched == pytest.approx(time.values(V3, 1) / time.values(V3))


def test_bubbles_and_gathers_by_hand():
    cluster = Cluster(chip("H800"), 2048)
    spent = parts(V3, cluster, Layout(128, 1, 64, 16), Training(4096, batch=15360 * 4096))
    assert spent.bubble == pytest.approx(time.BUBBLE * 15 / 120)  # 120 micro-batches for each of 128 pipelines
    plain, sharded = (time.data_traffic(QWEN, parse("8xH800"), Layout(8, zero=zero), 4e6) for zero in (1, 3))
    assert sharded / plain == (2 * 31 + 1) / 2  # 500K tokens a chip are 31 rounds of 16,384
    slow = time.data_traffic(QWEN, parse("16xH800"), Layout(16), 4e6)
    assert slow == pytest.approx(plain * 160 / 40)  # over the network instead of the links


@given(
    st.sampled_from([QWEN, V3]), st.sampled_from([64, 128, 512]), st.sampled_from(["bf16", "fp8"]), st.floats(1e6, 1e12)
)
def test_time_grows_with_tokens_and_falls_with_precision_and_chips(config, count, precision, tokens):
    cluster, here = Cluster(chip("H100"), count), Layout(count, expert=8 if config is V3 else 1)
    job = Training(4096, tokens, precision=precision)
    spent = training(config, cluster, here, job)
    assert 0 < spent.low < spent.likely < spent.high
    assert training(config, cluster, here, replace(job, tokens=2 * tokens)).likely == pytest.approx(2 * spent.likely)
    assert training(config, cluster, here, replace(job, precision="fp8")).likely <= spent.likely
    assert training(config, cluster, here, replace(job, recompute=True)).likely > spent.likely
    half = training(config, Cluster(chip("H100"), count // 2), replace(here, data=count // 2), job)
    assert spent.likely < half.likely


def test_a_chip_without_fp8_computes_in_bf16():
    a100 = parse("A100")
    assert time.peak(a100.chip, "fp8") == time.peak(a100.chip, "bf16") == 312e12


@given(lengths)
def test_lengths_have_their_mean_and_end_at_the_longest(found):
    places = [found.cap * (index + 0.5) / 4000 for index in range(4000)]
    alive = [found.alive(place) for place in places]
    assert sum(alive) * found.cap / 4000 == pytest.approx(found.mean, rel=0.01)
    cells = found.cells()
    assert sum(width * found.alive(place) for place, width in cells) == pytest.approx(found.mean, rel=0.03)
    assert all(a >= b for a, b in pairwise(alive))
    assert found.alive(0) == 1
    assert found.alive(found.cap) == 0
    assert found.mean / 2 * 0.9 <= found.context <= found.cap


def test_a_decoding_step_reads_the_experts_that_its_tokens_chose():
    engine = Engine(V3, Cluster(chip("H800"), 16), Layout(1, 16, 16, zero=0), "fp8")
    shared, routed = (each / 16 for each in (engine.read(0, 0) * 16, 59 * 256 * 3 * 7168 * 2048))
    assert engine.read(1, 0) == pytest.approx(shared + routed * 8 / 256)
    assert engine.read(2, 0) == pytest.approx(shared + routed * (1 - (1 - 8 / 256) ** 2))
    assert engine.read(1e4, 0) == pytest.approx(shared + routed)
    assert engine.read(3, 1000) - engine.read(3, 0) == pytest.approx(
        3 * 1000 * 576 * 61 * 2
    )  # V3 2.1.1: 512 + 64 a layer


def test_few_rows_wait_for_memory_and_many_for_products():
    engine = Engine(QWEN, parse("H100"), Layout())
    assert engine.step(2, 100) < 1.05 * engine.step(1, 100)
    assert engine.step(4096, 100) > 1.8 * engine.step(2048, 100)
    latents = Engine(V3, Cluster(chip("H800"), 64), Layout(64, 1, 64, zero=0))
    computed = 1e4 * flops.forward(V3, 5000, latent=True) / (989e12 * time.FITTED.linear)
    assert latents.step(1e4, 5000) == pytest.approx(computed + latents.waits(1e4))


def test_waits_of_a_step_by_hand():
    node, many = parse("8xH800"), Cluster(chip("H800"), 16)
    alone = 1e-3 + 28 * 48e-6
    assert Engine(QWEN, node, Layout(8)).waits(64) == pytest.approx(alone)
    summed = 2 * 28 * (8e-6 + 2 * 64 * 3584 * 2 / 160e9)
    assert Engine(QWEN, node, Layout(tensor=8)).waits(64) == pytest.approx(alone + summed)
    crossing = 2 * 28 * (16e-6 + 2 * 64 * 3584 * 2 / 40e9)
    assert Engine(QWEN, many, Layout(tensor=16)).waits(64) == pytest.approx(alone + crossing)
    exchange = Engine(V3, many, Layout(16, 1, 16)).waits(128) - Engine(V3, many, Layout(16, 1, 8)).waits(128)
    assert exchange == pytest.approx(58 * (60e-6 + 128 * 8 * 7168 * 3 / 40e9))
    assert exchange / 58 == pytest.approx(550e-6, rel=0.15)  # DeepEP's README: 173 + 329 us over 16 chips to 194 + 360


# gpt-fast's README: Llama 2's tokens a second for one row in bfloat16, on so many A100s.
GPT_FAST = [
    ("llama-7b", 1, 104.9),
    ("llama-7b", 2, 168.84),
    ("llama-7b", 4, 254.02),
    ("llama-7b", 8, 328.43),
    ("llama2-70b", 2, 21.32),
    ("llama2-70b", 4, 38.01),
    ("llama2-70b", 8, 62.5),
]


@pytest.mark.parametrize(("name", "chips", "speed"), GPT_FAST)
def test_one_row_decodes_as_gpt_fast_measured(name, chips, speed):
    engine = Engine(calibration.shapes()[name], parse(f"{chips}xA100"), Layout(tensor=chips, zero=0))
    assert 1 / (engine.step(1, 100) - decoding.BETWEEN) == pytest.approx(speed, rel=0.05)


def test_a_step_of_rl_is_sampling_training_and_the_weights_way():
    cluster, lengths = parse("16xH100"), Lengths(1000, 4096)
    sampler, trainer = Layout(16, zero=0), Layout(16)
    step = decoding.rl_step(QWEN, cluster, sampler, trainer, 2048, 200, lengths, prompts=64, passes=2, updates=4)
    sampled = sampling(QWEN, cluster, sampler, 2048, 200, lengths, prompts=64).likely
    trained = training(QWEN, cluster, trainer, Training(1000, 2048 * 1200, 512 * 1200), whole=False).likely
    plain = sampled + trained * 5 / 3 + 7615616512 * 2 / 40e9
    assert (step.low, step.likely, step.high) == pytest.approx(tuple(plain * each for each in decoding.LOOP))


@given(found=lengths, completions=st.integers(8, 5000), rows=st.integers(8, 512))
def test_waiting_for_the_longest_costs_and_a_full_batch_doesnt(found, completions, rows):
    cluster, here = parse("8xH100"), Layout(8, zero=0)
    spent = sampling(QWEN, cluster, here, completions, 100, found, rows=rows)
    steady = sampling(QWEN, cluster, here, completions, 100, found, rows=rows, asynchronous=True)
    assert steady.likely <= spent.likely * (1 + 0.05)  # where lengths hardly differ both are the same, up to the grid
    assert spent.low <= spent.likely <= spent.high
    faster = sampling(QWEN, cluster, here, completions, 100, found, rows=rows, guessed=1.8)
    assert spent.likely / 1.8 <= faster.likely < spent.likely


def test_long_tails_make_a_synchronous_step_idle():
    cluster, here = parse("8xH100"), Layout(8, zero=0)
    even, tailed = (sampling(QWEN, cluster, here, 512, 100, Lengths(2000, 32768, sigma)).likely for sigma in (0.2, 1.0))
    assert tailed > 2 * even


def test_layouts_are_found_for_training_and_sampling():
    cluster = parse("512xH800")
    found = time.trainer(V3, cluster, Training(4096, precision="fp8", recompute=True))
    assert found.chips == 512
    assert found.expert > 1  # 671B weights fit no node
    assert sampler(V3, cluster, 8192, 200, Lengths(5000, 32768), precision="fp8").chips == 512
    with pytest.raises(CapacityError, match="no layout fits 8xH800"):
        time.trainer(V3, parse("8xH800"), Training(4096))


@pytest.fixture(scope="module")
def ratios():
    """Hours published over hours foretold by an efficiency fitted on other people's runs."""
    return calibration.held_out(calibration.runs())


def test_the_shipped_efficiency_is_the_fitted_one(ratios):
    fitted = calibration.fit(calibration.runs())
    assert astuple(time.FITTED) == pytest.approx(astuple(fitted), rel=0.01)
    assert [ranges.factor(ratios, mixture) for mixture in (False, True)] == pytest.approx(
        [time.PLAIN, time.MIXED], abs=0.01
    )
    found = calibration.loops().values()
    low, high = ranges.loop(found)
    assert (low, median(found), high) == pytest.approx(decoding.LOOP, abs=0.01)


def test_runs_have_sources_and_v3_is_not_among_them():
    rows = calibration.table("runs.csv")
    assert all(row["source"] for row in (*rows, *calibration.table("rl.csv")))
    assert not [row["name"] for row in rows if "V3" in row["name"] or row["shape"] == "deepseek-v3"]
    assert len({(row["name"], row["group"], row["chip"], row["kind"]) for row in rows}) == len(rows)


def test_runs_held_out_are_foretold_within_a_fifth_in_the_median(ratios):
    """A run's estimate never uses itself, nor any run of the people who made it."""
    errors = {row: abs(1 / ratio - 1) for row, ratio in ratios.items()}
    assert median(errors.values()) <= 0.2
    assert median(error for row, error in errors.items() if row.whole) <= 0.2


def test_every_held_out_run_lies_in_its_range_and_not_in_half_of_it(ratios):
    """The range of a row is made from the rows of all other groups (cost/ranges.py)."""
    found = ranges.held_out(ratios)
    outside = [row.name for row, ratio in ratios.items() if not found[row][0] <= ratio <= found[row][1]]
    assert not outside
    halved = {row: (low**0.5, high**0.5) for row, (low, high) in found.items()}
    assert sum(not low <= ratios[row] <= high for row, (low, high) in halved.items()) >= 4
    assert median(high / low for low, high in found.values()) < 3.3  # a range that holds all says little


@pytest.mark.parametrize(("level", "inside"), [(0.9, 39), (0.95, 42), (0.99, 44)])
def test_narrower_ranges_hold_as_many_as_they_say(ratios, level, inside):
    found = ranges.held_out(ratios, level)
    assert sum(low <= ratios[row] <= high for row, (low, high) in found.items()) == inside
    assert inside / len(ratios) == pytest.approx(level, abs=0.02)


def test_a_group_counts_once_and_rows_of_unsaid_layout_not_at_all(ratios):
    plain = ranges.factor(ratios, mixture=False)
    more = {replace(row, name=f"{row.name} again"): ratio for row, ratio in ratios.items() if row.group == "StarCoder"}
    assert ranges.factor({**ratios, **more}, mixture=False) == pytest.approx(plain)
    spoilt = {row: ratio * (9 if row.others or row.mixture else 1) for row, ratio in ratios.items()}
    assert ranges.factor(spoilt, mixture=False) == plain
    assert ranges.factor(spoilt, mixture=True) > ranges.factor(ratios, mixture=True) > plain


def test_students_t_is_the_table_s():
    table = {(0.95, 1): 12.706, (0.99, 2): 9.925, (0.9, 5): 2.015, (0.99, 10): 3.169, (0.95, 120): 1.980}
    assert [ranges.students(*asked) for asked in table] == pytest.approx([*table.values()], rel=1e-3)


def test_an_rl_step_s_range_is_students_and_no_less_than_its_parts():
    low, high = ranges.loop([2.0, 4.0, 8.0], 0.95)
    assert low == 1.0
    assert high == pytest.approx(4 * 2 ** (4.303 * (4 / 3) ** 0.5), rel=1e-3)  # the table's t of 2 and their deviation


# NeMo-RL 0.6's synchronous steps, none of them in rl.csv: shape, H100s, longest, mean, completions, those of a prompt,
# updates, tensor parallelism of sampling; tensor, experts and pipeline of training; seconds. Prompts have 105 tokens.
LATER = [
    ("qwen3-30b-a3b", 32, 4096, 3203, 2048, 32, 4, 2, (1, 8, 1), 192),
    ("qwen3-235b-a22b", 128, 8192, 5698, 512, 32, 1, 16, (2, 16, 8), 395),
    ("qwen3-235b-a22b", 256, 8192, 5713, 512, 32, 1, 16, (2, 16, 8), 312),
    ("deepseek-v3", 256, 1536, 701, 512, 16, 1, 32, (1, 16, 16), 134),
    ("deepseek-v3", 512, 1536, 697, 512, 16, 1, 32, (1, 16, 16), 111),
]


@pytest.mark.parametrize("row", LATER, ids=lambda row: f"{row[0]} on {row[1]}")
def test_rl_steps_of_a_later_version_lie_in_the_range(row):
    name, chips, longest, mean, completions, group, updates, sampled, (tensor, expert, pipeline), seconds = row
    trainer = Layout(chips // tensor // pipeline, tensor, expert, pipeline)
    layouts = Layout(chips // sampled, sampled, sampled, zero=0), trainer
    config, found = calibration.shapes()[name], Lengths(mean - 105, longest - 105)
    given = {"prompts": completions / group, "updates": updates}
    step = decoding.rl_step(config, parse(f"{chips}xH100"), *layouts, completions, 105, found, **given)
    assert step.low < seconds < step.high


def test_a_fit_without_a_group_doesnt_see_it():
    rows = calibration.runs()
    spoilt = [replace(row, gpu_hours=row.gpu_hours * 100) if row.group == "Falcon" else row for row in rows]
    before, after = calibration.held_out(rows), calibration.held_out(spoilt)
    told = [(a.gpu_hours / before[a], b.gpu_hours / after[b]) for a, b in zip(rows, spoilt) if a.group == "Falcon"]
    assert told
    assert all(a == b for a, b in told)


def test_the_page_says_what_the_model_says(ratios):
    page = (Path(__file__).parents[2] / "docs" / "cost.md").read_text()
    told = {cells[0]: cells[2:5] for line in page.splitlines() if len(cells := line.strip("| ").split(" | ")) == 5}
    whole = {row.name: (row.gpu_hours, row.gpu_hours / ratio) for row, ratio in ratios.items() if row.whole}
    for name, (published, foretold) in whole.items():
        off = foretold / published - 1
        assert told[name] == [f"{published:,.0f}", f"{foretold:,.0f}", f"{off:+.0%}"]


def test_another_teams_v3_is_foretold_within_the_range():
    """Megatron-Bridge 25.09 trains V3 at 1,297 tokens a second and chip on 1,024 H100; it is not in runs.csv."""
    cluster, here = Cluster(chip("H100"), 1024), Layout(64, 2, 64, 8)
    tokens = 1297 * 1024
    spent = training(V3, cluster, here, Training(4096, tokens, 8192 * 4096, "fp8", prediction=True), whole=False)
    assert spent.low < 1 < spent.high


def test_an_inference_cluster_decodes_as_fast_as_deepseek_says():
    """Open-infra day 6: 14.8K tokens a second and node of H800, 20 to 22 a second for each user, 4,989 cached."""
    engine = Engine(V3, Cluster(chip("H800"), 144), Layout(144, 1, 128, zero=0), "fp8")
    rows = 14800 / 8 / 21
    assert 1 / engine.step(rows, 4989) == pytest.approx(21, rel=0.2)


def test_cost_needs_no_torch_and_imports_quickly():
    names = ("calibration", "cluster", "flops", "hardware", "memory", "published")
    code = (
        "import sys, time; start = time.process_time()\n"
        + "".join(f"import aftershock.cost.{name}\n" for name in names)
        + "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        + "print(time.process_time() - start)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(told.stdout) < 0.3
