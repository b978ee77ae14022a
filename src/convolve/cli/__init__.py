"""The command line. It says what the Python names say; `convolve --help` lists the commands."""

from convolve.cli.app import main

__all__ = ["main"]
