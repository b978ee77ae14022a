"""The kernels: one frozen spec class a file, sizes never in the spec."""
