import os
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from services.common.errors import ModelBroken
from services.inference.gpu.model.checkpoints import open_checkpoint
from tests.unit.inference.gpu.model.checkpoints import files


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_a_state_dict_of_any_floating_type_is_read(stored: torch.dtype, tmp_path: Path) -> None:
    tensors = files.cast(files.weights(), stored)
    with open_checkpoint(files.write_pth(tmp_path / "m.pth", OrderedDict(tensors))) as checkpoint:
        assert checkpoint.keys == tuple(tensors)
        for key, tensor in tensors.items():
            assert torch.equal(checkpoint.read(key, device=files.CPU, dtype=torch.float32), tensor.float())


def test_parameters_views_and_shared_tensors_are_read(tmp_path: Path) -> None:
    base = torch.randn(2000, 700)
    content = {"parameter": torch.nn.Parameter(base), "transposed": base.T, "same": base}
    with open_checkpoint(files.write_pth(tmp_path / "m.pth", content)) as checkpoint:
        for key, tensor in content.items():
            read = checkpoint.read(key, device=files.CPU, dtype=torch.float32)
            assert torch.equal(read, tensor)
            assert not read.requires_grad


def test_a_bare_tensor_is_the_text_embedding(tmp_path: Path) -> None:
    tensor = torch.randn(3, 5).bfloat16()
    with open_checkpoint(files.write_pth(tmp_path / "pos_emb.pt", tensor)) as checkpoint:
        assert checkpoint.shapes == {"pos_emb": (3, 5)}
        assert torch.equal(checkpoint.read("pos_emb", device=files.CPU, dtype=torch.bfloat16), tensor)


def test_the_older_spelling_is_read_under_the_models_names(tmp_path: Path) -> None:
    path = files.write_pth(tmp_path / "vae.pth", {"encoder.mid_block.attentions.0.query.weight": torch.ones(2, 2)})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.keys == ("encoder.mid_block.attentions.0.to_q.weight",)


class RunsCode:
    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._mark),)


def test_a_pickle_with_code_is_refused_and_nothing_of_it_runs(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    path = files.write_pth(tmp_path / "m.pth", files.weights() | {"extra": RunsCode(mark)})
    with pytest.raises(ModelBroken, match=r"holds code \(posix\.mkdir\); loading it could run anything, so it is refused"):
        open_checkpoint(path)
    assert not mark.exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match=r"holds code \(torch\.nn\.modules\.linear\.Linear\)"):
        open_checkpoint(files.write_pth(tmp_path / "m.pth", torch.nn.Linear(2, 2)))


def test_an_archive_of_old_pytorch_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save(files.weights(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelBroken, match=r"is a bare pickle or a file of PyTorch before 1\.6"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(2)], "holds a list, not a table of tensors"),
        ({"state_dict": {"a": torch.ones(2)}}, "'state_dict' is a dict; save the state dict alone"),
        ({1: torch.ones(2)}, "not a flat table of tensors"),
        ({"step": 7}, "'step' is a int"),
        ({"a": torch.ones(2, dtype=torch.int64)}, "stores a as torch.int64"),
        ({"a": torch.eye(2).to_sparse()}, "stores a as torch.float32, torch.sparse_coo"),
        ({}, "holds no tensors"),
        ({"a": torch.ones(2), "scaled_fp8": torch.ones(2)}, "keeps scales beside its weights"),
    ],
    ids=["list", "nested", "number as key", "number as value", "integers", "sparse", "empty", "scaled"],
)
def test_anything_but_a_flat_table_of_weights_is_refused(content: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match=words):
        open_checkpoint(files.write_pth(tmp_path / "m.pth", content))


def rewrite(path: Path, shorten: str, by_bytes: int, *, compression: int = zipfile.ZIP_STORED) -> None:
    """The same archive, valid as a zip, with a record shortened."""
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content[: len(content) - by_bytes] if name.endswith(shorten) else content)


def test_a_record_that_lacks_bytes_is_refused(tmp_path: Path) -> None:
    path = files.write_pth(tmp_path / "m.pth", {"a": torch.ones(1000), "b": torch.ones(1000)})
    rewrite(path, "data/0", 64)
    with pytest.raises(ModelBroken, match="its tensors take 8000 bytes, and it has 7936"):
        open_checkpoint(path)


def test_a_cut_table_of_contents_is_refused(tmp_path: Path) -> None:
    path = files.write_pth(tmp_path / "m.pth", files.weights())
    rewrite(path, "data.pkl", 20)
    with pytest.raises(ModelBroken, match="cut off, damaged or no PyTorch archive"):
        open_checkpoint(path)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = files.write_pth(tmp_path / "m.pth", {"a": torch.zeros(100_000)})
    rewrite(path, "nothing", 0, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelBroken, match="is cut off, damaged or no PyTorch archive"):
        open_checkpoint(path)


def test_some_other_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    with pytest.raises(ModelBroken, match="cut off, damaged or no PyTorch archive"):
        open_checkpoint(path)
