from services.common.formats import FORMAT_OF_SUFFIX, FORMATS, MEDIA_TYPES


def test_every_form_has_an_ending_and_a_media_type():
    assert set(FORMAT_OF_SUFFIX.values()) == set(FORMATS) == set(MEDIA_TYPES)
    assert (FORMAT_OF_SUFFIX[".jpeg"], FORMAT_OF_SUFFIX[".tif"]) == ("jpg", "tiff")
