"""ONNX, the open format of nets. Its files are read here; writing them takes the extra `convolve[onnx]`."""
