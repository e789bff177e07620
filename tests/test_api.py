"""Names, arguments, order and defaults are those of torch and torch.nn.functional."""

import inspect

import pytest

import tinyvid

# Written from PyTorch's documentation, without what this package leaves out on purpose:
# inplace=, out=, dtype=, the deprecated size_average= and reduce=,
# return_indices= of adaptive pooling, and cuDNN's and __torch_function__'s private ones.
# Of ours alone is relu= of the convolutions.
SIGNATURES = {
    "conv2d": "input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, relu=False",
    "conv3d": "input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, relu=False",
    "max_pool2d": "input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, "
    "return_indices=False",
    "max_pool3d": "input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, "
    "return_indices=False",
    "avg_pool2d": "input, kernel_size, stride=None, padding=0, ceil_mode=False, "
    "count_include_pad=True, divisor_override=None",
    "avg_pool3d": "input, kernel_size, stride=None, padding=0, ceil_mode=False, "
    "count_include_pad=True, divisor_override=None",
    "adaptive_avg_pool2d": "input, output_size",
    "adaptive_avg_pool3d": "input, output_size",
    "adaptive_max_pool2d": "input, output_size",
    "adaptive_max_pool3d": "input, output_size",
    "linear": "input, weight, bias=None",
    "matmul": "input, other",
    "cross_entropy": "input, target, weight=None, ignore_index=-100, reduction='mean', "
    "label_smoothing=0.0",
    "nll_loss": "input, target, weight=None, ignore_index=-100, reduction='mean'",
    "mse_loss": "input, target, reduction='mean'",
    "batch_norm": "input, running_mean, running_var, weight=None, bias=None, training=False, "
    "momentum=0.1, eps=1e-05",
    "layer_norm": "input, normalized_shape, weight=None, bias=None, eps=1e-05",
    "local_response_norm": "input, size, alpha=0.0001, beta=0.75, k=1.0",
    "dropout": "input, p=0.5, training=True",
    "pad": "input, pad, mode='constant', value=None",
    "relu": "input",
    "exp": "input",
    "log": "input",
    "sqrt": "input",
    "square": "input",
    "tanh": "input",
    "sigmoid": "input",
    "abs": "input",
    "neg": "input",
    "sin": "input",
    "cos": "input",
    "add": "input, other",
    "sub": "input, other",
    "mul": "input, other",
    "div": "input, other",
    "pow": "input, exponent",
    "maximum": "input, other",
    "minimum": "input, other",
    "where": "condition, input, other",
    "clamp": "input, min=None, max=None",
    "sum": "input, dim=None, keepdim=False",
    "mean": "input, dim=None, keepdim=False",
    "var": "input, dim=None, correction=1, keepdim=False",
    "std": "input, dim=None, correction=1, keepdim=False",
    "amax": "input, dim=None, keepdim=False",
    "amin": "input, dim=None, keepdim=False",
    "argmax": "input, dim=None, keepdim=False",
    "argmin": "input, dim=None, keepdim=False",
    "flatten": "input, start_dim=0, end_dim=-1",
    "transpose": "input, dim0, dim1",
    "squeeze": "input, dim=None",
    "unsqueeze": "input, dim",
    "narrow": "input, dim, start, length",
    "select": "input, dim, index",
    "chunk": "input, chunks, dim=0",
    "cat": "tensors, dim=0",
    "stack": "tensors, dim=0",
    "broadcast_to": "input, shape",
    "split": "input, split_size, dim=0",  # as the method; the function says split_size_or_sections
    # PyTorch wants `dim`; here it is the last axis unless said otherwise.
    "softmax": "input, dim=-1",
    "log_softmax": "input, dim=-1",
    "logsumexp": "input, dim=-1, keepdim=False",
    # Both f(x, 2, 3) and f(x, (2, 3)), as PyTorch's methods take them.
    "reshape": "input, *shape",
    "permute": "input, *dims",
    "flip": "input, *dims",
    "expand": "input, *sizes",
}
# Ours alone, or of another shape than PyTorch's of a similar name, on purpose.
OWN = {
    "add_at",
    "cast",
    "conv2d_uint8",
    "conv3d_relu_max_pool",
    "conv3d_uint8",
    "getitem",
    "lstm",
    "lstm_composed",
    "standardise",
    "unbroadcast",
}
LEFT_OUT = {
    "inplace",
    "size_average",
    "reduce",
    "_stacklevel",
    "dtype",
}
# Where PyTorch's Python signature differs by more than LEFT_OUT: see SIGNATURES.
DIFFERENT = {"softmax", "log_softmax", "split"}


def ours(name):
    signature = inspect.signature(getattr(tinyvid, name))
    parameters = [
        p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()
    ]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def test_every_operation_is_in_a_table():
    assert set(SIGNATURES) | OWN == set(tinyvid.ops.__all__)
    assert not set(SIGNATURES) & OWN


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    assert ours(name) == f"({SIGNATURES[name]})"


def test_signatures_beside_torch_s_own():
    torch = pytest.importorskip("torch")
    checked = 0
    for name in sorted(set(SIGNATURES) - DIFFERENT):
        theirs = getattr(torch.nn.functional, name, None) or getattr(torch, name, None)
        try:
            parameters = inspect.signature(theirs).parameters.values()
        except (TypeError, ValueError):
            continue  # written in C++, or a method only
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            continue
        want = [(p.name, p.default) for p in parameters if p.name not in LEFT_OUT]
        mine = inspect.signature(getattr(tinyvid, name)).parameters.values()
        assert [(p.name, p.default) for p in mine] == (
            want[:3] if name == "mse_loss" else want  # newer ones have a weight at the end
        ), name
        checked += 1
    assert checked >= 8


METHODS = """
    abs add amax amin argmax argmin broadcast_to chunk clamp cos div exp expand flatten flip
    log log_softmax logsumexp matmul maximum mean minimum mul narrow neg permute pow relu reshape
    select sigmoid sin softmax split sqrt square squeeze std sub sum tanh transpose unsqueeze var
"""


@pytest.mark.parametrize("name", METHODS.split())
def test_methods_are_the_functions(name):
    assert getattr(tinyvid.Tensor, name) is getattr(tinyvid, name)


def test_all_names_exist_and_are_documented():
    for name in tinyvid.__all__:
        assert getattr(tinyvid, name).__doc__, name
