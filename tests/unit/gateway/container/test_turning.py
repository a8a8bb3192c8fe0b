import numpy as np
import pytest

from services.gateway.container.tags import PictureTags
from services.gateway.container.turning import turned

STORED = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)[..., None]
# By EXIF: which side of what is stored is seen at the top, and which on the left.
SEEN = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}


@pytest.mark.parametrize("orientation", SEEN)
def test_a_picture_is_turned_as_exif_says(orientation: int):
    tags = PictureTags(orientation=orientation)
    assert turned(STORED, tags.display_matrix)[..., 0].tolist() == SEEN[orientation]
    assert (tags.rotation in (90, 270)) == (len(SEEN[orientation]) == 3)
