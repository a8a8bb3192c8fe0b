"""The model as a GPU likes it: the same parameters and the same structure, other kernels and another order of memory passes.

Everything here takes the modules of ``vae.py`` and ``dit.py`` as its definition and reads their parameters. ``kernels.py``
decides whether it is used.
"""
