import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from services.inference.gpu.model.dit import Dit
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.model.vae import Vae
from tests.unit.inference.gpu.goldens import KERNELS, NANO, table

MODELS = [("seedvr2-3b", "3b"), ("seedvr2-7b", "7b"), ("seedvr2-7b-sharp", "7b")]


def _shapes(module: torch.nn.Module) -> list[tuple[str, list[int]]]:
    """In the order of the state dict, which is that of the released files."""
    return [(key, list(value.shape)) for key, value in module.state_dict().items()]


@pytest.mark.parametrize(("name", "released"), MODELS)
def test_transformers_have_exactly_the_released_keys_and_shapes(name: str, released: str) -> None:
    with torch.device("meta"):
        dit = Dit(SPECS[name].dit, KERNELS)
    manifest = table(f"dit/manifest_{released}")
    assert _shapes(dit) == list(manifest["shapes"].items())
    assert sum(p.numel() for p in dit.parameters()) == manifest["num_parameters"]
    assert [key for key, _ in dit.named_buffers()] == sorted(manifest["buffers"], key=list(manifest["shapes"]).index)


@pytest.mark.parametrize(("name", "released"), MODELS)
def test_the_autoencoder_has_exactly_the_released_keys_and_shapes(name: str, released: str) -> None:
    with torch.device("meta"):
        vae = Vae(SPECS[name].vae, KERNELS)
    assert _shapes(vae) == list(table("vae/manifest_vae")["tensors"].items())


def test_a_last_block_with_weights_apart_can_not_leave_its_text_bare() -> None:
    with pytest.raises(ValueError, match="fewer split_blocks than blocks"):
        replace(SPECS["seedvr2-3b"].dit, split_blocks=32)


@pytest.mark.parametrize(
    ("name", "multiple", "spatial", "temporal"), [("nano", 8, 4, 1), ("seedvr2-3b", 16, 8, 4), ("seedvr2-7b", 16, 8, 4)]
)
def test_factors_follow_from_the_levels(name: str, multiple: int, spatial: int, temporal: int) -> None:
    spec = SPECS[name]
    assert (spec.size_multiple, spec.vae.spatial_factor, spec.vae.temporal_factor) == (multiple, spatial, temporal)


def test_nano_is_what_its_configuration_says() -> None:
    spec, config = SPECS["nano"], json.loads((NANO / "config.json").read_text())
    dit, vae = config["dit"]["model"], config["vae"]["model"]
    assert (spec.dit.width, spec.dit.heads, spec.dit.head_width) == (dit["vid_dim"], dit["heads"], dit["head_dim"])
    assert (spec.dit.blocks, spec.dit.split_blocks) == (dit["num_layers"], dit["mm_layers"])
    assert [list(spec.dit.window_counts)] * spec.dit.blocks == dit["window"]
    assert [spec.text_tokens, spec.dit.text_width] == config["text"]["shape"]
    assert list(spec.vae.channels) == vae["block_out_channels"]
    assert (spec.vae.norm_groups, spec.vae.temporal_levels) == (vae["norm_num_groups"], vae["temporal_scale_num"])
    assert (spec.size_multiple, spec.vae.scaling_factor) == (config["size_multiple"], config["vae"]["scaling_factor"])


def test_specs_can_be_read_without_torch() -> None:
    code = "import sys; import services.inference.gpu.model.spec; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
