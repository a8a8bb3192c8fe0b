from services.inference.fingerprint import code_facts, fingerprint_of


def test_a_fingerprint_depends_on_every_fact_and_not_on_their_order():
    assert fingerprint_of({"a": "1", "b": "2"}) == fingerprint_of({"b": "2", "a": "1"})
    assert len({fingerprint_of(f) for f in ({}, {"a": "1"}, {"a": "2"}, {"b": "1"})}) == 4


def test_the_code_is_a_fact():
    assert code_facts() == code_facts()
    assert len(code_facts()["code"]) == 16
