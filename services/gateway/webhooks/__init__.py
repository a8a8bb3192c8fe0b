"""Telling programs over the web that a job has ended: signed, tried again for hours, by whichever gateway is there."""
