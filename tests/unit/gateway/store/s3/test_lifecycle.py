from xml.etree import ElementTree

from services.gateway.store.s3.lifecycle import expiry_rule, merged, parts_rule

THEIRS = b"""<?xml version="1.0" encoding="UTF-8"?>
<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<Rule><ID>theirs</ID><Status>Enabled</Status><Filter><And><Prefix>x/</Prefix><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter>
<NoncurrentVersionExpiration><NewerNoncurrentVersions>3</NewerNoncurrentVersions><NoncurrentDays>9</NoncurrentDays></NoncurrentVersionExpiration>
</Rule></LifecycleConfiguration>"""


def rules(prefix: str = "p/", days: int = 7) -> list[ElementTree.Element]:
    return [parts_rule(prefix, days=days), expiry_rule(prefix, ".unfinished/", days=days)]


def said(xml: bytes) -> dict[str, list[str]]:
    """The texts of each rule, by its id."""
    found = {}
    for rule in ElementTree.fromstring(xml):
        texts = [(e.text or "").strip() for e in rule.iter()]
        words = [t for t in texts if t]
        found[words[0]] = words[1:]
    return found


def test_an_empty_bucket_gets_our_rules():
    new = merged(None, rules())
    assert new
    assert said(new.xml) == {
        "seedvr2-leftovers:p/parts": ["Enabled", "p/", "7"],
        "seedvr2-leftovers:p/.unfinished/": ["Enabled", "p/.unfinished/", "7"],
    }
    assert b"AbortIncompleteMultipartUpload" in new.xml


def test_rules_of_others_stay_word_for_word():
    new = merged(THEIRS, rules())
    assert new
    assert said(new.xml)["theirs"] == said(THEIRS)["theirs"]
    assert b"NewerNoncurrentVersions" in new.xml
    assert len(said(new.xml)) == 3


def test_nothing_is_written_where_all_is_as_it_should_be():
    once = merged(THEIRS, rules())
    assert once
    assert merged(once.xml, rules()) is None
    assert merged(once.xml.replace(b' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"', b""), rules()) is None


def test_our_rules_of_other_days_are_replaced_and_those_of_other_installations_stay():
    other = merged(THEIRS, rules("other/"))
    assert other
    first = merged(other.xml, rules(days=7))
    assert first
    second = merged(first.xml, rules(days=3))
    assert second
    found = said(second.xml)
    assert found["seedvr2-leftovers:p/parts"][-1] == "3"
    assert found["seedvr2-leftovers:other/parts"][-1] == "7"
    assert len(found) == 5
