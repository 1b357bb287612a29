"""What several layers share and speed hangs on: the micro-kernel, GEMM, convolution, arithmetic."""
