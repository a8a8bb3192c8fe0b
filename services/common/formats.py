"""What a result can be: a video, a picture, or a picture for each frame. One list for everybody who names them."""

VIDEOS = ("mp4", "mkv")
"""Containers of videos."""

PICTURES = ("png", "jpg", "webp", "tiff")
"""Files of one picture."""

SEQUENCE = "zip"
"""An archive with a PNG for each frame; also what a sequence of pictures is uploaded as."""

STILL = frozenset({*PICTURES, SEQUENCE})
"""What no player plays."""

FORMATS = (*VIDEOS, *PICTURES, SEQUENCE)
"""All, as requests name them."""

MEDIA_TYPES = {
    "mp4": "video/mp4",
    "mkv": "video/x-matroska",
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "tiff": "image/tiff",
    "zip": "application/zip",
}
"""For browsers."""

FORMAT_OF_SUFFIX = {f".{name}": name for name in FORMATS} | {".jpeg": "jpg", ".tif": "tiff"}
"""By a file name's ending in small letters."""
