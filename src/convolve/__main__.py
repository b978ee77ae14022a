"""`python -m convolve` is `convolve`."""

from convolve.cli import main

if __name__ == "__main__":
    main()
