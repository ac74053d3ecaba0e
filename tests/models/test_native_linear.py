"""Linear layers in C: values and gradients are PyTorch's, and their bits don't depend on the number of threads."""

import pytest
import torch
import torch.nn.functional as F

from aftershock.models.layers import GatedMLP, Linear, linears
from aftershock.models.native import build, linear

pytestmark = pytest.mark.skipif(build.library("train") is None, reason=f"no native part: {build.why_not('train')}")

# More rows than a block has, and than parts of one block hold; more outputs than a slab; no multiples of a vector's
# width; and fewer of each.
SIZES = [
    (700, 128, (128, 64, 64)),
    (5, 36, (52,)),
    (301, 20, (3, 67)),
    (270, 400, (31,)),
    (40, 16, (600,)),
    (9, 1, (1, 5)),
    (4200, 16, (24,)),
]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def leaves(rows, ins, outs):
    draw = torch.Generator().manual_seed(0)
    shapes = [(1, rows, ins), *((out, ins) for out in outs), *((out,) for out in outs)]
    x, *given = (torch.randn(*shape, generator=draw).requires_grad_() for shape in shapes)
    return x, given[: len(outs)], given[len(outs) :], [torch.randn(1, rows, out, generator=draw) for out in outs]


def found(size, in_place=False):
    x, weights, biases, ups = leaves(*size)
    given = linear.linears(x, weights, biases, in_place)
    return [*given, *torch.autograd.grad(given, [x, *weights, *biases], ups)]


@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients_are_pytorchs(size, threads):
    threads(1)
    x, weights, biases, ups = leaves(*size)
    wanted = [F.linear(x, weight, bias) for weight, bias in zip(weights, biases)]
    wanted += torch.autograd.grad(wanted, [x, *weights, *biases], ups)
    alone = found(size)
    for one, other in zip(alone, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
    for count in (2, 3):
        threads(count)
        assert all(map(torch.equal, alone, found(size)))


def test_large_weights_have_pytorchs_gradients(monkeypatch):
    wanted = found(SIZES[0])
    monkeypatch.setattr(linear, "_SMALL", 0)
    for one, other in zip(found(SIZES[0], in_place=True), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("adds", [False, True])
def test_what_isn_t_asked_for_isn_t_written_and_what_is_held_is_added_to(adds):
    x, weights, _, ups = leaves(300, 24, (40, 10))
    x, weights, ups = x[0].detach(), [weight.detach() for weight in weights], [up[0] for up in ups]
    held = torch.full_like(weights[1], 3.0)
    bias = torch.full((10,), 3.0)
    linear.slopes(x, weights, ups, None, [None, held], [None, bias], adds=adds)
    torch.testing.assert_close(held, ups[1].t() @ x + 3.0 * adds, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(bias, ups[1].sum(0) + 3.0 * adds, rtol=1e-4, atol=1e-3)
    linear.slopes(x, weights, ups, None, [None, None], [None, bias])  # of a frozen weight's layer
    torch.testing.assert_close(bias, ups[1].sum(0), rtol=1e-4, atol=1e-3)


def test_several_layers_give_what_each_does():
    layers = [Linear(32, out) for out in (48, 16)]
    x = torch.randn(1, 300, 32)
    assert layers[0].native(x)
    assert all(map(torch.equal, linears(x, *layers), [layer(x) for layer in layers]))


@pytest.mark.parametrize(("frozen", "bias"), [((), True), (("x", "up_proj.weight", "down_proj.weight"), False)])
def test_a_gated_mlp_gives_what_its_layers_do(frozen, bias):
    torch.manual_seed(0)
    mlp, x, more = GatedMLP(32, 48, bias=bias), torch.randn(1, 300, 32), torch.randn(1, 300, 32)
    asked = [tensor for name, tensor in [("x", x), ("more", more), *mlp.named_parameters()] if name not in frozen]
    for tensor in (x, more, *mlp.parameters()):
        tensor.requires_grad_(any(tensor is one for one in asked))
    up = torch.randn(1, 300, 32)
    made = [mlp(x, more), more + mlp.down_proj(mlp.gated(*linears(x, mlp.gate_proj, mlp.up_proj)))]
    assert type(made[0].grad_fn).__name__ == "_MLPFunctionBackward"
    assert torch.equal(*made)
    assert all(map(torch.equal, *(torch.autograd.grad(y, asked, up) for y in made)))


def test_few_rows_half_precision_and_sampling_are_left_to_pytorch():
    x, weight = torch.randn(300, 32), torch.randn(48, 32)
    assert linear.serves(x, weight)
    assert not linear.serves(x[:200], weight)
    assert not linear.serves(x, torch.empty(1 << 14, 32))
    assert not linear.serves(x.bfloat16(), weight.bfloat16())
    with torch.autocast("cpu"):
        assert not linear.serves(x, weight)
    with torch.inference_mode():
        assert not linear.serves(x, weight)
