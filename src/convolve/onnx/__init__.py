"""ONNX, the open format of nets. Reading and writing its files takes the extra `convolve[onnx]`."""
