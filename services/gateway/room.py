"""Whether a result fits the memory of the workers that would restore it. Pure; the workers say how much they need and have."""

from services.common.errors import InvalidOption
from services.common.fleet import WorkerModel


def padded_pixels(model: WorkerModel, width: int, height: int) -> int:
    """Pixels of a frame as the model takes it, padded on two sides."""
    across, down = (-(-side // model.size_multiple) * model.size_multiple for side in (width, height))
    return across * down


def predicted_memory_bytes(model: WorkerModel, width: int, height: int, device_bytes: int) -> int:
    """What a span will take of a device; a smaller device is used as far as it goes. 0 where nothing is known."""
    if not model.memory_base_bytes:
        return 0
    wished = round(model.memory_base_bytes + model.memory_bytes_per_pixel * padded_pixels(model, width, height))
    return min(wished, device_bytes) if device_bytes else wished


def has_room(model: WorkerModel, width: int, height: int) -> bool:
    """Whether frames of this size fit the worker that describes the model like this; one that doesn't say takes all."""
    return not model.max_output_pixels or padded_pixels(model, width, height) <= model.max_output_pixels


def check_room(model: WorkerModel, width: int, height: int, device_bytes: int) -> None:
    """Raises InvalidOption, with the numbers, where no worker's device has room for frames of this size."""
    if has_room(model, width, height):
        return
    wished = model.memory_base_bytes + model.memory_bytes_per_pixel * padded_pixels(model, width, height)
    raise InvalidOption(
        f"The result would be {width}×{height} pixels, which takes about {wished / 1e9:.0f} GB of memory with {model.name}. A "
        f"device of the workers has {device_bytes / 1e9:.0f} GB, enough for frames of {model.max_output_pixels / 1e6:.1f} "
        "megapixels at most. Choose a smaller target.",
        field="request.target",
    )
