"""Packets to frames and frames to segments, in a process of its own for each span.

Read from the top: ``process`` (the server's side, without PyAV) > ``child`` (the process: two threads) > ``decode``,
``match`` and ``encode`` > ``colour``.
"""
