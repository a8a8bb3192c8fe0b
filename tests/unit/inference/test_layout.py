import pytest

from services.inference.layout import ParallelLayout, layout_of


def test_ranks_are_divided_into_groups():
    assert [ParallelLayout(world_size=8, sequence=sequence).groups for sequence in (1, 2, 4, 8)] == [8, 4, 2, 1]


def test_without_a_wish_all_ranks_share_a_span():
    assert layout_of(ranks=8, sequence=0) == ParallelLayout(world_size=8, sequence=8)
    assert layout_of(ranks=8, sequence=2).groups == 4


@pytest.mark.parametrize(
    ("ranks", "sequence", "words"),
    [
        (8, 3, "8 ranks can't be divided into groups of 3; sequence must be one of 1, 2, 4, 8"),
        (2, 4, "2 ranks can't be divided into groups of 4; sequence must be one of 1, 2"),
        (0, 1, "at least 1"),
        (2, -1, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused_in_words(ranks: int, sequence: int, words: str):
    with pytest.raises(ValueError, match=words):
        layout_of(ranks=ranks, sequence=sequence)
