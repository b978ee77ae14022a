"""Native code: the target, kernel builder, kernels, object cache and the workers that run them.

`dispatch` turns a kernel's frozen spec into a function pointer; `workers` runs tables of such calls.
"""
