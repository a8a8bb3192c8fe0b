"""The colour modes: how a restored frame gets its colours from the source. One list for everybody who names them."""

COLOURS = ("wavelet", "adain", "lab", "hsv", "wavelet_adaptive", "none")
"""In the order in which people are offered them; the first one is the default."""
