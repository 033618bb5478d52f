"""Matrix products of MKL and oneDNN (PyTorch has both) and OpenBLAS (numpy has it), measured in short turns.

python tests/bench/pytorch_gemm.py --threads 2

Prints {"libraries": {NAME: VERSION}, "missing": {NAME: REASON}}. Then each line on stdin, as
{"library": NAME, "shape": [m, n, k], "in_a_row": 1, "seconds": 0.1}, is answered by a line {"median_ms", "best_ms"}: runs of so many
products x·Wᵀ, x [m, k] and W [n, k], each of operands of its own, for so long.
"""
import argparse
import json
import os
import re
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=2)
o = parser.parse_args()
os.environ["OPENBLAS_NUM_THREADS"] = str(o.threads)  # read when the library is loaded

import torch

torch.set_num_threads(o.threads)


def version(pattern):
    found = re.search(pattern, torch.__config__.show())
    return f"{found[1] if found else '?'} in PyTorch {torch.__version__}"


def mkl(x, w):
    y = torch.empty(len(x), len(w))
    return lambda: torch.mm(x, w.t(), out=y)


def mkl_version():
    assert torch.backends.mkl.is_available(), f"PyTorch {torch.__version__} is built without it"
    return version(r"Math Kernel Library Version (\S+)-")


def openblas(x, w):
    import numpy
    x, w, y = x.numpy(), w.numpy(), numpy.empty((len(x), len(w)), numpy.float32)
    return lambda: numpy.matmul(x, w.T, out=y)


def openblas_version():
    import numpy
    blas = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    assert "openblas" in blas["name"], f"numpy {numpy.__version__} multiplies with {blas['name']}"
    return f"{blas['version']} in numpy {numpy.__version__}"


def onednn(x, w):
    x, w = x.to_mkldnn(), w.to_mkldnn()
    return lambda: torch._C._nn.mkldnn_linear(x, w)  # what torch.utils.mkldnn's layers call; it has no `out`


def onednn_version():
    assert torch.backends.mkldnn.is_available(), f"PyTorch {torch.__version__} is built without it"
    return version(r"MKL-DNN v(\S+)")


LIBRARIES = {"MKL": (mkl, mkl_version), "OpenBLAS": (openblas, openblas_version), "oneDNN": (onednn, onednn_version)}


def introduction():
    """Tries each library: what cannot multiply here is missing, and why."""
    libraries, missing = {}, {}
    for name, (product, version_of) in LIBRARIES.items():
        try:
            libraries[name] = version_of()
            product(torch.randn(5, 3), torch.randn(4, 3))()
        except Exception as error:
            libraries.pop(name, None)
            missing[name] = f"{error}" or type(error).__name__
    return {"libraries": libraries, "missing": missing}


def measured(products, seconds):
    def run():
        for product in products:
            product()

    run()  # wakes the threads, fills the caches
    times, begin, before = [], time.perf_counter(), time.process_time()
    while len(times) < 3 or time.perf_counter() < begin + seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    cores = (time.process_time() - before) / (time.perf_counter() - begin)
    times.sort()
    return {"median_ms": 1e3 * times[len(times) // 2], "best_ms": 1e3 * times[0], "cores": cores}


with torch.inference_mode():
    print(json.dumps(introduction()), flush=True)
    made, of = {}, None
    for line in sys.stdin:
        question = json.loads(line)
        name, (m, n, k), in_a_row = question["library"], question["shape"], question["in_a_row"]
        if of != (m, n, k, in_a_row):
            made, of = {}, (m, n, k, in_a_row)
        if name not in made:
            product = LIBRARIES[name][0]
            made[name] = [product(torch.randn(m, k), torch.randn(n, k)) for _ in range(in_a_row)]
        print(json.dumps(measured(made[name], question["seconds"])), flush=True)
