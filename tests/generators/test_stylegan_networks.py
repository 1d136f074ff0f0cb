"""The networks against the numbers of the public implementations, within the tolerances of float32."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from stages.generators.stylegan import checkpoint
from stages.generators.stylegan.configs import decoded
from stages.generators.stylegan.networks import resampling, stylegan2, stylegan3
from stages.generators.stylegan.networks.mapping import Network
from stages.generators.stylegan.networks.resampling import downsample, upsample
from tests.helpers.stylegan import FIXTURES, FOLDERS, GEOMETRY, official


@pytest.fixture(params=FOLDERS, scope="module")
def case(request):
    """A network, and its inputs and outputs."""
    arrays = dict(np.load(FIXTURES / request.param / "io.npz"))
    io = {name: values if values.dtype.kind == "U" else torch.from_numpy(values) for name, values in arrays.items()}
    return checkpoint.read(FIXTURES / request.param / "network.pkl").network, io


@pytest.fixture(autouse=True)
def inference():
    with torch.no_grad():
        yield


def every_layer(network: Network, w):
    return w[:, None].expand(-1, network.synthesis.num_ws, -1)


def is_stylegan2(network: Network) -> bool:
    return isinstance(network.synthesis, stylegan2.Synthesis)


def outputs(network: Network, ws, names):
    """What each module puts out, before anything is added to it in place."""
    kept = {}
    hooks = [
        network.synthesis.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: kept.update({name: output.clone()})
        )
        for name in names
    ]
    network.synthesis(ws)
    for hook in hooks:
        hook.remove()
    return {name: kept[name] for name in names}


def test_mapping_and_truncation(case):
    network, io = case
    mapping, c = network.mapping, io.get("c")
    w = mapping(io["z"], c)
    tolerance = dict(rtol=0, atol=1e-5 if is_stylegan2(network) else 5e-6)
    assert_allclose(every_layer(network, w), io["w"], **tolerance)
    assert_allclose(every_layer(network, mapping.truncated(w, c, 0.7)), io["w_psi07"], **tolerance)
    first_three = every_layer(network, w).clone()
    first_three[:, :3] = mapping.truncated(w, c, 0.5)[:, None]
    assert_allclose(first_three, io["w_psi05_cut3"], **tolerance)
    assert torch.equal(mapping.truncated(w, c, 1.0), w)


def test_images(case):
    network, io = case
    pairs = [("w", "image"), ("w_mixed", "image_mixed") if is_stylegan2(network) else ("w_psi07", "image_psi07")]
    for ws, image in pairs:
        assert_allclose(network.synthesis(io[ws]), io[image], rtol=0, atol=2e-5)


def test_activations(case):
    network, io = case
    names = io["act_names"].tolist()
    expected = [io[name] for name in io if name.startswith("act_") and name != "act_names"]
    found = outputs(network, io["w"], names)
    assert len(expected) == len(names) >= 3
    for name, values in zip(names, expected, strict=True):
        assert_allclose(found[name][:1, :8], values, rtol=0, atol=5e-5 if is_stylegan2(network) else 2e-4)


def test_every_layers_statistics(case):
    network, io = case
    names = io["layer_names"].tolist()
    for found, (mean, deviation, largest) in zip(
        outputs(network, io["w"], names).values(), io["layer_stats"], strict=True
    ):
        assert_allclose(found.double().mean(), mean, rtol=1e-4, atol=1e-4)
        assert_allclose(found.double().std(correction=0), deviation, rtol=1e-4)
        assert_allclose(found.abs().max(), largest, rtol=1e-4)


def test_double_precision(case, monkeypatch):
    """Exact to rounding, once styles are normalised over the batch as the public implementation does it.

    Here each sample is normalised by itself, so that no picture depends on its neighbours. In exact arithmetic that
    cancels except for the epsilon of the demodulation, which leaves a trace of 1e-10.
    """
    network, io = case
    network, hooks = network.double(), []
    try:
        w = network.mapping(io["z"].double(), io["c"].double() if "c" in io else None)
        own = network.synthesis(every_layer(network, w[:1]))
        assert_allclose(own, io["image_float64"], rtol=0, atol=1e-12 if is_stylegan2(network) else 1e-9)
        layers = [one for one in network.synthesis.modules() if isinstance(one, stylegan3.SynthesisLayer)]
        for layer in layers:
            if not layer.config.to_rgb:  # the styles of the whole batch, and the picture of its first sample
                hooks.append(layer.affine.register_forward_pre_hook(lambda affine, inputs: w))
        monkeypatch.setattr(stylegan3, "normalised", lambda styles: (styles * styles.square().mean().rsqrt())[:1])
        together = network.synthesis(every_layer(network, w[:1]))
        assert_allclose(together, io["image_float64"], rtol=0, atol=1e-12)
    finally:
        for hook in hooks:
            hook.remove()
        network.float()


@pytest.mark.parametrize("case", [name for name in FOLDERS if name.startswith("sg2")], indirect=True)
def test_noise_is_the_constant_one(case):
    network, io = case
    strengths = [value for name, value in network.named_parameters() if name.endswith("noise_strength")]
    kept = [strength.clone() for strength in strengths]
    try:
        torch._foreach_zero_(strengths)
        assert_allclose(network.synthesis(io["w"]), io["image_none"], rtol=0, atol=2e-5)
    finally:
        torch._foreach_copy_(strengths, kept)


def test_a_picture_depends_on_its_own_w_alone(case):
    network, io = case
    alone = torch.cat([network.synthesis(w[None]) for w in io["w"]])
    crowd = torch.cat([io["w"], 1e4 * io["w"][:1]])  # a style far out of range beside them
    assert_allclose(network.synthesis(crowd)[:-1], alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_is_near(case, precision):
    network, io = case
    image = network.synthesis(io["w"][:1], precision)
    assert image.dtype == torch.float32
    assert 0 < (image - io["image"][:1]).square().mean().sqrt() < 0.05 * io["image"].std()


@pytest.mark.parametrize("case", [name for name in FOLDERS if name.startswith("xl")], indirect=True)
def test_stylegan_xl_as_fedktl_samples_it(case):
    """Classes from one stream of the seed, z from another; truncation towards the mean of the class."""
    network, io = case
    seed, count = int(io["seedw_seed"]), len(io["seedw_psi1"])
    z = torch.from_numpy(np.random.RandomState(seed).randn(count, io["z"].shape[1]).astype(np.float32))
    drawn = torch.from_numpy(np.random.RandomState(seed).randint(0, network.mapping.c_dim, count))
    for name, classes, psi in [
        ("seedw_psi1", drawn, 1.0), ("seedw_psi06", drawn, 0.6), ("seedw_psi06_class2", torch.full((count,), 2), 0.6),
    ]:  # fmt: skip
        c = torch.eye(network.mapping.c_dim)[classes]
        w = network.mapping.truncated(network.mapping(z, c), c, psi)
        assert_allclose(w, io[name], rtol=0, atol=5e-6)


def stylegan2_network(architecture: str) -> Network:
    mapping = dict(z_dim=4, c_dim=0, embedding=0, widths=[6], lr_multiplier=0.01)
    synthesis = dict(resolution=16, architecture=architecture, channels=[5, 4, 3], clamp=None)
    network = stylegan2.network(decoded(stylegan2.Config, dict(mapping=mapping, synthesis=synthesis)))
    generator = torch.Generator().manual_seed(0)
    for value in network.state_dict().values():
        value.normal_(generator=generator)
    return network


def test_orig_is_skip_with_the_last_torgb_alone():
    skip, orig = stylegan2_network("skip"), stylegan2_network("orig")
    weights = skip.state_dict()
    surplus = weights.keys() - orig.state_dict().keys()
    assert surplus == {name for name in weights if "torgb" in name and "b16" not in name}
    orig.load_state_dict({name: value for name, value in weights.items() if name not in surplus})
    ws = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(1))
    found = outputs(skip, ws, ["b16.torgb"])["b16.torgb"]
    image = orig.synthesis(ws)
    assert image.shape == (2, 3, 16, 16)
    assert image.isfinite().all() and image.std() > 0
    assert torch.equal(image, found)


@pytest.mark.parametrize("name", GEOMETRY)
def test_full_size_networks(name):
    family, config = official(name)
    with torch.device("meta"):
        network = family.network(config)
    assert sum(parameter.numel() for parameter in network.parameters()) == GEOMETRY[name]["num_parameters"]
    assert network.synthesis.num_ws == GEOMETRY[name]["num_ws"]
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert shapes == GEOMETRY[name].get("state_dict_shapes", shapes)
    for layer, facts in zip(config.synthesis.layers, GEOMETRY[name]["layers"], strict=True):
        low, high = facts["padding"][:2]
        assert layer.crop == facts["up_taps"] - 1 - low == facts["up_taps"] - facts["up_factor"] - high


def test_upsampling_by_hand():
    """1, 2 become 1, 0, 2, 0 times the gain 2; the filter (1, 1) then holds each value."""
    x, fir = torch.tensor([[[[1.0, 2.0]]]]).expand(1, 1, 2, 2), torch.tensor([0.5, 0.5])
    rows = torch.tensor([[1.0, 1.0, 2.0, 2.0]]).expand(4, 4)
    assert torch.equal(upsample(x, fir, factor=2, crop=0)[0, 0], rows)
    assert torch.equal(upsample(x, fir.outer(fir), factor=2, crop=1)[0, 0], rows[1:3, 1:3])


def test_downsampling_by_hand():
    """The filter is flipped, as in a convolution: 3 x 1 + 1 x 2, then 3 x 3 + 1 x 4; columns alike."""
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).expand(4, 4)[None, None]
    fir = torch.tensor([1.0, 3.0])
    assert torch.equal(downsample(x, fir, factor=2)[0, 0], torch.tensor([[20.0, 52.0], [20.0, 52.0]]))
    assert torch.equal(downsample(x, fir.outer(fir), factor=2)[0, 0], torch.tensor([[20.0, 52.0], [20.0, 52.0]]))


@pytest.mark.parametrize(("taps", "factor", "crop"), [(12, 2, 5), (24, 4, 9), (8, 2, 0), (5, 1, 1)])
def test_filters_as_matrix_products_are_those_as_convolutions(taps, factor, crop, monkeypatch):
    """How a GPU filters; an asymmetric filter, and sides that differ."""
    fir, x = torch.linspace(1, 2, taps) / taps, torch.randn(2, 3, 17, 20)
    up, down = upsample(x, fir, factor, crop), downsample(x, fir, factor, padding=crop)
    monkeypatch.setattr(resampling, "_by_products", lambda x, fir: True)
    assert_allclose(upsample(x, fir, factor, crop), up, rtol=0, atol=2e-6)
    assert_allclose(downsample(x, fir, factor, padding=crop), down, rtol=0, atol=2e-6)
