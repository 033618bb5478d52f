"""Matrix products in PyTorch (oneDNN or MKL), to measure against: prints a JSON list of {name, shape, threads, median_ms, gflops}.

python tests/bench/pytorch_gemm.py --threads 2 --shapes 512x512x512,1576x1536x384
"""
import argparse
import json
import time

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--seconds", type=float, default=1.0)
parser.add_argument("--in-a-row", type=int, default=1, help="products of a measurement, each of operands of its own")
parser.add_argument("--shapes", required=True, help="MxNxK,…: C[M, N] = A[M, K] · B[N, K]ᵀ")
o = parser.parse_args()
torch.set_num_threads(o.threads)
rows = []
with torch.no_grad():
    for shape in o.shapes.split(","):
        m, n, k = map(int, shape.split("x"))
        operands = [(torch.randn(m, k), torch.randn(n, k)) for _ in range(o.in_a_row)]
        times, end = [], time.perf_counter() + o.seconds
        while len(times) < 5 or time.perf_counter() < end:
            start = time.perf_counter()
            for a, b in operands:
                torch.nn.functional.linear(a, b)
            times.append(time.perf_counter() - start)
        median = sorted(times)[len(times) // 2]
        rows.append({"name": "gemm", "shape": shape, "threads": o.threads, "median_ms": median * 1e3,
                     "gflops": o.in_a_row * 2 * m * n * k / median / 1e9})
print(json.dumps(rows))
