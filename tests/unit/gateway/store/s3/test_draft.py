from services.gateway.store.s3.draft import Draft, draft_from_bytes, draft_to_bytes


def test_a_draft_is_read_as_it_was_written():
    draft = Draft(upload_id="u", parts=((1, "a", 5), (3, "b", 6)), next_part=4, tail=b"\n\0tail\n")
    assert draft_from_bytes(draft_to_bytes(draft)) == draft
    assert draft.size == 5 + 6 + 7


def test_equal_drafts_of_two_writers_are_written_unequally():
    assert draft_to_bytes(Draft()) != draft_to_bytes(Draft())


def test_a_part_takes_the_place_of_the_tail():
    draft = Draft(upload_id="u", next_part=2, tail=b"12345").with_part("t", 5)
    assert (draft.parts, draft.tail, draft.next_part, draft.size) == (((2, "t", 5),), b"", 3, 5)


def test_a_claim_leaves_the_number_that_somebody_may_be_using():
    assert Draft(next_part=7).claimed().with_part("t", 1).parts == ((8, "t", 1),)
