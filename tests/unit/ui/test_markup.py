from services.ui.markup import join, tag


def test_text_and_attributes_are_escaped() -> None:
    assert tag("p", "<b>&", title='"x"') == '<p title="&quot;x&quot;">&lt;b&gt;&amp;</p>'


def test_an_element_inside_an_element_is_not_escaped_twice() -> None:
    assert tag("p", tag("b", "a & b"), "<") == "<p><b>a &amp; b</b>&lt;</p>"


def test_attributes_can_be_switched_off_and_without_value() -> None:
    assert tag("video", controls=True, muted=False, class_=None, data_start=0.5) == '<video controls data-start="0.5"></video>'


def test_an_image_has_no_end() -> None:
    assert tag("img", src="a.png", alt="") == '<img src="a.png" alt="">'


def test_parts_are_joined_in_order() -> None:
    assert join(["a", tag("i", "b"), "<"]) == "a<i>b</i>&lt;"
