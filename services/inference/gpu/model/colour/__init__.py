"""Colour transfer: fine detail from the restored frame, colours and brightness of the source.

Read from the top: ``transfer`` (every mode by name) > ``wavelet`` and ``statistics`` (the modes) > ``histogram`` and ``spaces``.
"""
