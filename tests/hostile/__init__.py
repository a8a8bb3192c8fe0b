"""Damaged and hostile files in great number, against the processes that read them."""
