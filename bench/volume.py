"""How much ranks tell each other in one step of the transformer, by arithmetic."""

from services.inference.gpu.model.spec import DitSpec
from services.inference.gpu.parallel.sequence import divide


def split_by(spec: DitSpec, ranks: int) -> str:
    """How attention is divided."""
    if ranks == 1:
        return ""
    return "windows" if spec.heads % ranks else "heads"


def published_bytes(spec: DitSpec, tokens: int, words: int, ranks: int, element: int) -> float:
    """Sent by a rank in all blocks where text is divided like video: queries, keys and values there, one tensor back.

    (P - 1) / P · 4 · D · (L + l) / P elements a block.
    """
    return spec.blocks * (ranks - 1) / ranks * 4 * spec.width * (tokens + words) / ranks * element


def expected_bytes(spec: DitSpec, tokens: int, words: int, ranks: int, element: int) -> float:
    """Sent by the first rank in a step where every rank has all text, the velocities at the end included.

    Exact where heads are divided. Where windows are, a token's window is taken to be on any rank with equal chance. The last
    block gives no text back.
    """
    own, others = divide(tokens, ranks)[0], (ranks - 1) / ranks
    end = own * spec.latent_channels * spec.patch**2 * (ranks - 1) * element
    if split_by(spec, ranks) == "windows":
        text = 2 * others * words * spec.width * 4
        video = 4 * own * others * spec.width * element
    else:
        text = others * words * spec.width * element
        video = (3 * own * others + (tokens - own) / ranks) * spec.width * element
    return spec.blocks * video + (spec.blocks - 1) * text + end
