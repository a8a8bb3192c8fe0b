"""Checkpoint files of every kind that SeedVR2 is published in, read one tensor at a time.

PyTorch archives (``.pth``), safetensors in fp32, fp16, bf16 and plain fp8, GGUF. The kind is told by a file's content, never by
its name. Whatever can't be used is refused with ``ModelBroken`` before anything of it reaches a model.
"""

from services.inference.gpu.model.checkpoints.checkpoint import Checkpoint
from services.inference.gpu.model.checkpoints.convert import convert_to_bf16
from services.inference.gpu.model.checkpoints.detect import open_checkpoint
from services.inference.gpu.model.checkpoints.fill import check_fit, fill

__all__ = ["Checkpoint", "check_fit", "convert_to_bf16", "fill", "open_checkpoint"]
