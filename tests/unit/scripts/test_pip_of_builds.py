from pathlib import Path

from scripts.pip_of_builds import known_options, volumes

LISTED = """\
:env:.find-links='/wheels'
:env:.no-input='1'
global.cert='/etc/ssl/certs/ca.crt'
global.extra-index-url='file:///disk/simple https://index.example/simple'
global.constraint='/etc/pip/constraints.txt'
"""


def test_options_that_say_where_packages_come_from_are_taken_but_not_what_lies_on_this_disk():
    assert known_options(LISTED) == {
        "find-links": "/wheels",
        "cert": "/etc/ssl/certs/ca.crt",
        "extra-index-url": "https://index.example/simple",
    }


def test_an_option_with_nothing_left_is_not_taken():
    assert known_options("global.extra-index-url='file:///disk/simple'\n") == {}


def test_folders_of_what_options_name_are_mounted_read_only(tmp_path: Path):
    certificate, wheels = tmp_path / "certs" / "ca.crt", tmp_path / "wheels"
    certificate.parent.mkdir()
    certificate.touch()
    wheels.mkdir()
    options = {"cert": str(certificate), "find-links": f"{wheels} https://wheels.example"}
    assert volumes(options) == [f"--volume={folder}:{folder}:ro" for folder in (certificate.parent, wheels)]
