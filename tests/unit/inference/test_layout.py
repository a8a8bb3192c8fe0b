import pytest

from services.inference.layout import ParallelLayout, layout_of


def test_ranks_are_divided_into_groups():
    assert [ParallelLayout(world_size=8, sequence=sequence).groups for sequence in (1, 2, 4, 8)] == [8, 4, 2, 1]


def test_without_a_wish_all_ranks_share_a_span():
    assert layout_of(ranks=8, sequence=0) == ParallelLayout(world_size=8, sequence=8)
    assert layout_of(ranks=8, sequence=2).groups == 4


def test_ranks_of_several_machines_are_one_group():
    layout = layout_of(ranks=4, sequence=0, machines=2)
    assert (layout.world_size, layout.sequence, layout.groups, layout.ranks_here) == (8, 8, 1, 4)
    assert layout_of(ranks=4, sequence=8, machines=2) == layout


@pytest.mark.parametrize("sequence", [1, 4])
def test_a_group_that_needs_no_other_machine_is_refused_in_words(sequence: int):
    with pytest.raises(ValueError, match="all 8 ranks of 2 machines must share a span; leave sequence 0"):
        layout_of(ranks=4, sequence=sequence, machines=2)


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
