"""Quantized layers in graphs: torch.export, torch.compile, ONNX, and without any values."""

import copy
import io

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from lightcourse import metrics, quantization
from tests import toys

# Bits, group_size, activations (a pair: 8 on that fixed range), symmetric.
FORMS = [
    (8, None, None, True),
    (6, 32, None, False),
    (8, None, 8, True),
    (8, None, (-2.0, 3.0), True),
    (4, 32, None, True),
    (3, 8, None, False),
    (4, None, 8, True),
    (4, 32, 8, False),
    (8, 32, 8, True),
    (4, 32, (-2.0, 3.0), False),
]
STRICT = [(FORMS[2], True), (FORMS[3], True)]
IDS = torch.tensor([[0, 16, 39], [15, 32, 31]])
every_form = pytest.mark.parametrize("form", FORMS)
every_table = pytest.mark.parametrize("bits, symmetric", [(8, True), (4, False)])


def build(form, outputs=40, inputs=96):
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    ends = next((part for part in form if isinstance(part, tuple)), None)
    how = [8 if part is ends is not None else part for part in form]
    return quantization.QuantizedLinear(weight, bias, *how, activation_range=ends)


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


class Logits(torch.nn.Module):
    """A language model, or a classifier, as a function of tensors alone."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, mask):
        return self.model(input_ids=ids, attention_mask=mask).logits


# --- torch ----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def forget_graphs():
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("form, strict", [*((form, False) for form in FORMS), *STRICT])
def test_an_exported_layer_equals_the_layer_bit_for_bit(form, strict):
    layer = build(form)
    some = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    exported = torch.export.export(layer, (draw(2, 5, 96),), dynamic_shapes=(some,), strict=strict)
    for x in (draw(2, 5, 96), draw(3, 7, 96)):
        assert torch.equal(exported.module()(x), layer(x))


def test_an_exported_program_holds_the_operator_and_the_packed_integers():
    layer = build((4, 32, 8, True))
    exported = torch.export.export(layer, (draw(2, 96),))
    (call,) = [n for n in exported.graph.nodes if n.op == "call_function"]
    assert call.target is torch.ops.lightcourse.linear_integers.default
    saved = io.BytesIO()
    torch.export.save(exported, saved)
    saved.seek(0)
    x = draw(3, 96)[:2]
    assert torch.equal(torch.export.load(saved).module()(x), layer(x))
    assert sum(t.nbytes for t in exported.state_dict.values()) == metrics.size_in_bytes(layer)


@pytest.mark.parametrize("form", FORMS[1:4] + FORMS[7:])
def test_a_compiled_layer_and_its_gradient_equal_the_layers(form):
    layer = build(form)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x, same = draw(5, 96).requires_grad_(), draw(5, 96).requires_grad_()
    y, wanted = compiled(x), layer(same)
    assert torch.equal(y, wanted)
    for result in (y, wanted):
        result.square().sum().backward()
    assert torch.allclose(x.grad, same.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("form", [form for form in FORMS if form[2] == 8])
def test_the_operator_is_what_torch_wants_of_one(form):
    layer = build(form)
    buffers = layer.qweight, layer.scale, layer.zero_point, layer.bias
    for x in (draw(5, 96), draw(2, 5, 96).requires_grad_()):
        operator = torch.ops.lightcourse.linear_integers.default
        torch.library.opcheck(operator, (x, *buffers, 40, layer.bits))


@every_table
def test_tables_are_exported_and_compiled_and_still_refuse_ids(bits, symmetric):
    table = quantization.QuantizedEmbedding(draw(40, 32), bits, None, symmetric)
    exported = torch.export.export(table, (IDS,)).module()
    compiled = torch.compile(table, fullgraph=True, backend="aot_eager")
    for graph in (exported, compiled):
        assert torch.equal(graph(IDS), table(IDS))
        for wrong in (-1, 40):
            with pytest.raises(RuntimeError, match="an id is out of range; 0 to 39 is wanted"):
                graph(torch.where(IDS == 16, wrong, IDS))


def test_a_trace_records_the_operator_and_not_its_answer():
    layer = build((8, None, 8, True))
    with pytest.warns(DeprecationWarning, match="torch.jit.trace"):
        traced = torch.jit.trace(layer, (draw(2, 96),), check_trace=False)
    x = draw(3, 96)[1:]
    assert torch.equal(traced(x), layer(x))


INTEGERS, FOUR = {"activations": 8}, {"bits": 4, "embeddings": 8}


@pytest.mark.parametrize("family, how", [("gpt2", {}), ("bert", INTEGERS), ("llama", FOUR)])
def test_whole_models_are_exported(family, how):
    model, inputs = quantized(family, how)
    exported = torch.export.export(model, inputs)
    with torch.no_grad():
        assert torch.equal(exported.module()(*inputs), model(*inputs))


def quantized(family, how):
    model = toys.ALL[family]()
    quantization.quantize_(model, **how)
    ids = torch.arange(1, 17).view(2, 8)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return Logits(model).eval(), (ids, mask)


# --- without values, and copied -------------------------------------------------------------


@every_form
def test_a_layer_without_values_tells_shapes(form):
    from torch._subclasses.fake_tensor import FakeTensorMode

    layer = build(form)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        y = layer(mode.from_tensor(draw(2, 96).bfloat16()))
    assert y.shape == (2, 40) and y.dtype == torch.bfloat16
    empty = copy.deepcopy(layer).to("meta")
    assert empty(draw(2, 96).to("meta")).shape == (2, 40)
    empty.to_empty(device="cpu").load_state_dict(layer.state_dict())
    assert torch.equal(empty(draw(2, 96)), layer(draw(2, 96)))
    with pytest.raises(NotImplementedError, match="no data"):
        copy.deepcopy(layer).to("meta").to("cpu")


@every_table
def test_a_table_without_values_tells_shapes(bits, symmetric):
    from torch._subclasses.fake_tensor import FakeTensorMode

    table = quantization.QuantizedEmbedding(draw(40, 32), bits, None, symmetric)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert table(mode.from_tensor(IDS)).shape == (2, 3, 32)
    assert table.to("meta")(IDS.to("meta")).shape == (2, 3, 32)


@every_form
def test_copies_compute_the_same(form):
    layer, other, x = build(form), build(form), draw(2, 96)
    saved = io.BytesIO()
    torch.save(layer, saved)
    saved.seek(0)
    for buffer in other.buffers():
        buffer.zero_()
    other.load_state_dict(layer.state_dict())
    assigned = build(form).to("meta")
    assigned.load_state_dict(layer.state_dict(), assign=True)
    loaded = torch.load(saved, weights_only=False)
    for copied in (copy.deepcopy(layer), loaded, other, assigned):
        assert torch.equal(copied(x), layer(x))
    doubled = dict(layer.named_buffers()) | {"bias": layer.bias * 2}
    got = functional_call(layer, doubled, (x,))
    assert torch.allclose(got, layer(x) + layer.bias, atol=1e-5)


@pytest.mark.parametrize("reentrant", [True, False])
@every_form
def test_gradients_pass_through_checkpoints(form, reentrant):
    layer = build(form)
    x, same = draw(2, 96).requires_grad_(), draw(2, 96).requires_grad_()
    layer(x).sum().backward()
    checkpoint(layer, same, use_reentrant=reentrant).sum().backward()
    assert torch.equal(x.grad, same.grad)


# --- ONNX -----------------------------------------------------------------------------------


def to_onnx(module, inputs, path, **how):
    """Export as anybody would; return the file's model, and a function that runs it."""
    pytest.importorskip("onnxscript")
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    torch.onnx.export(module, inputs, path, dynamo=True, external_data=False, verbose=False, **how)
    session = runtime.InferenceSession(path)
    names = [given.name for given in session.get_inputs()]

    def run(*given):
        given = {name: t.numpy() for name, t in zip(names, given, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return onnx.load(path), run


def operators(model):
    return {node.op_type for node in model.graph.node}


def assert_near(got, want, bound=1e-5):
    """Integers are exact, and floats added in another order: 1e-5 of the largest output."""
    assert got.dtype == want.dtype and got.shape == want.shape
    assert (got - want).abs().max() <= bound * want.abs().max()


def bound(form):
    """Return by how much a layer may differ: ONNX Runtime rounds inputs of 4 bits by blocks."""
    return 0.02 if form[0] <= 4 and form[2] == 8 else 1e-5


def operator(form):
    """Return which operator multiplies."""
    bits, group_size, activations = form[:3]
    if bits <= 4 or (activations == 8 and group_size):
        return "MatMulNBits"
    return "MatMulInteger" if activations == 8 else "DequantizeLinear"


@pytest.mark.parametrize("form", [*FORMS[::2], FORMS[7]])
def test_a_layer_in_onnx_computes_what_the_layer_does(form, tmp_path):
    layer = build(form).eval()
    some = ({0: torch.export.Dim("batch")},)
    x = draw(2, 5, 96)
    model, run = to_onnx(layer, (x,), tmp_path / "layer.onnx", dynamic_shapes=some)
    assert operator(form) in operators(model)
    for count in (1, 3):
        x = draw(count, 5, 96)
        assert_near(run(x), layer(x), bound(form))
    for bad in (float("nan"), float("inf"), -float("inf")):
        x[0, 2, 7] = bad
        spoilt = ~run(x).isfinite().all(-1)
        assert spoilt.sum() == 1 and spoilt[0, 2]


@pytest.mark.parametrize("form", [(8, None, None), (8, None, 8), (4, 32, 8), (8, 32, 8)])
def test_integers_are_stored_as_integers_in_the_file(form, tmp_path):
    layer = build(form, outputs=256, inputs=384).eval()
    path = tmp_path / "layer.onnx"
    model, run = to_onnx(layer, (draw(2, 384),), path)
    assert_near(run(draw(2, 384)), layer(draw(2, 384)), bound(form))
    # Scales of 16 bits are stored in 32, with a zero point each; the rest describes the graph.
    assert path.stat().st_size <= metrics.size_in_bytes(layer) + 3 * layer.scale.numel() + 25_000
    largest = max(model.graph.initializer, key=lambda held: np.prod(held.dims))
    assert largest.data_type == 2  # uint8
    assert np.prod(largest.dims) == 256 * 384 * (1 if form[0] > 4 else 1 / 2)


@pytest.mark.parametrize("form", [(4, 10, None), (3, 8, None, False), (4, None, 8)])
def test_groups_that_are_no_blocks_are_multiplied_as_floats(form, tmp_path):
    layer = build(form, inputs=40).eval()
    model, run = to_onnx(layer, (draw(5, 40),), tmp_path / "layer.onnx")
    assert "DequantizeLinear" in operators(model)
    assert_near(run(draw(5, 40)), layer(draw(5, 40)))


@pytest.mark.parametrize("activations, shape", [(None, (96,)), (8, (1, 2, 3, 96))])
def test_half_precision_and_any_shape_in_onnx(activations, shape, tmp_path):
    layer, x = build((8, None, activations)).half().eval(), draw(*shape).half()
    _, run = to_onnx(layer, (x,), tmp_path / "layer.onnx")
    assert run(x).dtype == torch.float16
    exact = layer.float()(x.float())
    assert torch.allclose(run(x).float(), exact, rtol=2e-3, atol=5e-2)


@every_table
def test_a_table_in_onnx_gives_its_rows(bits, symmetric, tmp_path):
    table = quantization.QuantizedEmbedding(draw(400, 64), bits, 32, symmetric).eval()
    path = tmp_path / "table.onnx"
    _, run = to_onnx(table, (IDS,), path)
    assert torch.equal(run(IDS), table(IDS))
    assert path.stat().st_size <= metrics.size_in_bytes(table) + 30_000


@pytest.mark.parametrize("family, how", [("bert", INTEGERS), ("llama", FOUR)])
def test_whole_models_in_onnx_compute_the_same(family, how, tmp_path):
    module, inputs = quantized(family, how)
    model, run = to_onnx(module, inputs, tmp_path / "model.onnx")
    with torch.no_grad():
        assert_near(run(*inputs), module(*inputs))
    wanted = "MatMulInteger" if "activations" in how else "MatMulNBits"
    assert wanted in operators(model)
