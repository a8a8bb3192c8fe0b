import av

from services.inference.video.facts import encoder_facts


def test_the_encoder_says_which_one_it_is():
    facts = encoder_facts()
    assert facts["pyav"] == av.__version__
    assert int(facts["x264"].split()[0]) > 150
