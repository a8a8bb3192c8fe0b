from pathlib import Path

import pytest

from services.common.errors import ModelBroken
from services.inference.gpu.model.checkpoints.keys import by_current_key, current_key, few

FILE = Path("model.safetensors")


@pytest.mark.parametrize(
    ("old", "new"), [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")], ids=lambda name: name
)
def test_the_older_spelling_of_the_autoencoders_attention_is_accepted(old: str, new: str) -> None:
    assert current_key(f"encoder.mid_block.attentions.0.{old}.weight") == f"encoder.mid_block.attentions.0.{new}.weight"
    assert current_key(f"decoder.mid_block.attentions.0.{old}.bias") == f"decoder.mid_block.attentions.0.{new}.bias"


@pytest.mark.parametrize(
    "key", ["blocks.0.attn.proj_qkv.vid.weight", "decoder.mid_block.attentions.0.to_q.weight", "query.weight"]
)
def test_other_keys_keep_their_names(key: str) -> None:
    assert current_key(key) == key


def test_a_tensor_in_both_spellings_is_refused() -> None:
    both = ["mid_block.attentions.0.query.weight", "mid_block.attentions.0.to_q.weight"]
    with pytest.raises(ModelBroken, match=r"model\.safetensors holds mid_block\.attentions\.0\.to_q\.weight twice"):
        by_current_key(FILE, [(key, None) for key in both])


@pytest.mark.parametrize(
    "key",
    [
        "scaled_fp8",
        "blocks.0.attn.proj_qkv.vid.scale_weight",
        "blocks.0.attn.proj_qkv.vid.scale_input",
        "blocks.0.attn.proj_qkv.vid.weight_scale",
        "blocks.0.attn.proj_qkv.vid.weight_scale_2",
        "blocks.0.attn.proj_qkv.vid.weight_scale_inv",
        "blocks.0.attn.proj_qkv.vid.input_scale",
        "blocks.0.attn.proj_qkv.vid.comfy_quant",
        "vid_in.scale",
    ],
)
def test_scales_are_refused_with_an_explanation(key: str) -> None:
    with pytest.raises(ModelBroken, match=f"keeps scales beside its weights \\({key}\\): scaled fp8 .* not supported"):
        by_current_key(FILE, [("vid_in.weight", None), (key, None)])


@pytest.mark.parametrize("key", ["blocks.0.ada.vid.attn_scale", "blocks.0.ada.all.mlp_scale", "vid_out_ada.out_scale"])
def test_modulation_vectors_are_no_scales(key: str) -> None:
    assert by_current_key(FILE, [(key, 1)]) == {key: 1}


def test_a_file_without_tensors_is_refused() -> None:
    with pytest.raises(ModelBroken, match="holds no tensors"):
        by_current_key(FILE, [])


def test_long_lists_are_cut() -> None:
    assert few("abc") == "a, b, c"
    assert few("abcde") == "a, b, c and 2 more"
