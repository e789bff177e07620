"""Saliency maps against finite differences, and cases worked out by hand."""

import numpy as np
import pytest
from compare import assert_close

from tinyvid import models, nn
from tinyvid.errors import UserError
from tinyvid.saliency import grad_cam, gradient_saliency, last_maps


def class_activation_maps(rng):
    """Return a network whose Grad-CAM is known: 1×1×1 filters, their mean, and weights for it."""
    conv, fc = nn.Conv3d(3, 4, 1, bias=False), nn.Linear(4, 5)
    net = nn.Sequential(conv=conv, relu=nn.ReLU(), gap=nn.GlobalAvgPool(), fc=fc).to(np.float64)
    net.load_state_dict({k: rng.normal(size=t.shape) for k, t in net.state_dict().items()})
    return net, conv.weight.numpy()[:, :, 0, 0, 0], fc.weight.numpy()


@pytest.mark.parametrize("name", ["slow_fusion", "early_fusion", "single_frame"])
def test_the_gradient_is_that_of_finite_differences(name):
    rng = np.random.default_rng(0)
    net = models.build(name, 3, clip=(2, 3, 16, 16), width=2).to(np.float64)
    x = rng.normal(size=(2, 2, 3, 16, 16))
    classes = np.array([2, 0])
    found = gradient_saliency(net, x, classes)
    assert found.shape == (2, 3, 16, 16)
    net.eval()
    for n, t, h, w in [(0, 0, 3, 5), (0, 2, 8, 8), (1, 1, 15, 0), (1, 0, 7, 11)]:
        changes = []
        for c in range(2):
            step = np.zeros_like(x)
            step[n, c, t, h, w] = 1e-5
            up, down = (net(x + s).numpy()[n, classes[n]] for s in (step, -step))
            changes.append(abs(up - down) / 2e-5)
        assert_close(found[n, t, h, w], np.max(changes), rtol=1e-5, atol=1e-9)


def test_a_score_is_that_of_the_class_asked_for_else_of_the_first():
    rng = np.random.default_rng(1)
    net, _, _ = class_activation_maps(rng)
    x = rng.normal(size=(3, 3, 2, 4, 4))
    best = net(x).numpy().argmax(axis=1)
    assert_close(gradient_saliency(net, x), gradient_saliency(net, x, best))
    others = [gradient_saliency(net, x, (best + k) % 5) for k in range(1, 5)]
    assert all(np.abs(other - gradient_saliency(net, x)).max() > 1e-3 for other in others)


def test_grad_cam_of_a_mean_of_maps_is_their_weighted_sum():
    # d score / d A_k is fc_k / positions everywhere, and so is its mean.
    rng = np.random.default_rng(2)
    net, w, fc = class_activation_maps(rng)
    x = rng.normal(size=(2, 3, 3, 4, 5))
    maps = np.maximum(np.einsum("kc,ncthw->nkthw", w, x), 0)
    for classes in ([0, 1], [4, 2]):
        expected = np.einsum("nk,nkthw->nthw", fc[classes], maps) / (3 * 4 * 5)
        assert (expected < 0).any()
        found = grad_cam(net, x, classes, "relu")
        assert_close(found, np.maximum(expected, 0), rtol=1e-12, atol=1e-15)


def test_cells_are_drawn_at_the_middle_of_what_they_see():
    # Cells of 4×4 pixels have their middles at 1.5, 5.5, ...; between them values rise evenly.
    net = nn.Sequential(pool=nn.AvgPool2d(4), flatten=nn.Flatten(), fc=nn.Linear(4, 2, bias=False))
    net.to(np.float64).load_state_dict({"fc.weight": np.ones((2, 4))})
    x = np.zeros((1, 1, 1, 8, 8))
    x[..., 4:] = 1  # the right cells are 1, the left ones 0
    found = grad_cam(nn.Sequential(squeeze=_FirstFrame(), net=net), x, [0], "net.pool")
    expected = np.interp(np.arange(8), [1.5, 5.5], [0, 1])
    assert_close(found, np.broadcast_to(expected, (1, 1, 8, 8)), rtol=1e-12, atol=1e-15)


class _FirstFrame(nn.Module):
    def forward(self, x):
        return x[:, :, 0]

    def windows(self, positions):
        from tinyvid.trace import LayerWindows

        alone = (1, 1, 0, 1)
        return LayerWindows((alone, alone, alone), (1, *positions[1:]))


@pytest.mark.parametrize("name", ["slow_fusion", "early_fusion", "late_fusion", "cnn_lstm"])
def test_grad_cam_has_the_size_of_the_clip_and_leaves_the_network_as_it_was(name):
    rng = np.random.default_rng(3)
    net = models.build(name, 3, clip=(3, 4, 32, 32), width=2).train()
    x = rng.normal(size=(2, 3, 4, 32, 32)).astype(np.float32)
    before = {k: t.numpy() for k, t in net.state_dict().items()}
    found = grad_cam(net, x, [1, 1])
    assert found.shape == (2, 4, 32, 32)
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert net.training
    for key, tensor in net.state_dict().items():
        assert_close(tensor.numpy(), before[key])


def test_the_default_layer_has_maps_of_some_cells():
    net = models.build("slow_fusion", 3, clip=(3, 8, 32, 32))
    assert last_maps(net, (3, 8, 32, 32)) == "trunk.relu3"
    assert last_maps(net, (3, 8, 64, 64)) == "trunk.relu4"
    with pytest.raises(UserError, match="at least 4×4 cells"):
        last_maps(nn.Sequential(nn.Conv3d(3, 2, 3)), (3, 8, 5, 5))


def test_the_fovea_explains_nothing_beyond_it():
    net = models.build("fovea", 3, clip=(3, 2, 64, 64), width=2)
    x = np.random.default_rng(4).normal(size=(4, 3, 2, 64, 64)).astype(np.float32)
    saliency = gradient_saliency(net, x)
    outside = np.ones((64, 64), bool)
    outside[16:48, 16:48] = False
    assert not saliency[..., outside].any()
    assert saliency[..., ~outside].any()


def test_what_is_wrong_is_said():
    net, _, _ = class_activation_maps(np.random.default_rng(5))
    x = np.zeros((2, 3, 2, 4, 4))
    with pytest.raises(UserError, match="no layer 'conv9': it has conv, relu"):
        grad_cam(net, x, [0, 0], "conv9")
    with pytest.raises(UserError, match="fc has no maps"):
        grad_cam(net, x, [0, 0], "fc")
    for classes in ([0], [0, 5], [-1, 0]):
        with pytest.raises(UserError, match="one of 0 to 4 for each of 2 clips"):
            gradient_saliency(net, x, classes)
