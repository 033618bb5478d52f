"""PyTorch float32 on a graphics card, TF32 off, to measure against: prints a JSON list of rows with name, shape, median_ms.

python tests/bench/pytorch_gpu.py [--quick] [--device cuda] [--seconds 1]

The same shapes as `cli/bench.ts all --backend webgpu`: products [rows, inner]×[inner, columns] of ViT-S/16 at batch 64 with
their gradients, attention forward and backward, layer norm, the loss at K = 65536, AdamW, and the whole DINO update, whose row
has the most memory that was allocated (peak_gpu_mb). --quick: tiny sizes. --device cpu tries the script out without a card.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import time

import torch
from torch.nn import functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--device", default="cuda")
parser.add_argument("--seconds", type=float, default=1.0)
parser.add_argument("--quick", action="store_true")
o = parser.parse_args()
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
torch.set_float32_matmul_precision("highest")
on_gpu = o.device.startswith("cuda")
finish = torch.cuda.synchronize if on_gpu else lambda: None
if o.quick:
    D, heads, batch, crop, local, locals_, K, cubes, extra = 192, 3, 1, 64, 32, 2, 512, [128], [(101, 1)]
else:
    D, heads, batch, crop, local, locals_, K, cubes, extra = 384, 6, 64, 224, 96, 8, 65536, [1024, 4096], [(785, 16)]
N, views = (crop // 16) ** 2 + 1, 2 + locals_
rows = []


def ended(*_):
    """What was measured until somebody lost patience is worth printing."""
    print(json.dumps(rows), flush=True)
    os._exit(1)


signal.signal(signal.SIGTERM, ended)


def measure(name, shape, run, flops=None):
    """Runs in batches that take at least a quarter of a second, as waiting for a card costs time too."""
    def batch_of(runs):
        finish()
        start = time.perf_counter()
        for _ in range(runs):
            run()
        finish()
        return time.perf_counter() - start

    batch_of(1)
    runs = 1
    while runs < 4096 and batch_of(runs) < (0.02 if o.quick else 0.25):
        runs *= 2
    times, end = [], time.perf_counter() + o.seconds
    while len(times) < 3 or time.perf_counter() < end:
        times.append(batch_of(runs) / runs)
    median = sorted(times)[len(times) // 2]
    rows.append({"name": name, "shape": shape, "median_ms": median * 1e3, "gflops": flops and flops / median / 1e9})


def rand(*shape):
    return torch.randn(*shape, device=o.device)


def gemm(lead, m, k, n, bias=None):
    """Forward y = x Wᵀ (+ bias), then the gradients dy W and dyᵀ x."""
    x, w, dy = rand(m, k), rand(n, k), rand(m, n)
    b = rand(n) if bias else None
    flops = 2 * m * n * k
    measure("gemm", f"[{lead}, {k}]×[{k}, {n}]", lambda: F.linear(x, w, b), flops)
    measure("gemm", f"[{lead}, {n}]×[{n}, {k}]", lambda: dy @ w, flops)
    measure("gemm", f"[{n}, {lead}]×[{lead}, {k}]", lambda: dy.t() @ x, flops)


# The update in a process of its own, so that its peak is its own.
flags = dict(embed_dim=D, num_heads=heads, batch_size=batch, global_crop_size=crop, local_crop_size=local,
             local_crops_number=locals_, out_dim=K, steps=1 if o.quick else 10, warmup=1 if o.quick else 3)
command = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "pytorch_step.py"), "--device", o.device]
for name, value in flags.items():
    command += ["--" + name.replace("_", "-"), str(value)]
step = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
step["shape"] = f"batch {batch}, 2×{crop} + {locals_}×{local}, K {K}"
rows.append(step)
with torch.no_grad():
    for n in cubes:
        a, b = rand(n, n), rand(n, n)
        measure("gemm", f"[{n}, {n}]×[{n}, {n}]", lambda: a @ b, 2 * n**3)
    for inputs, outputs in [(D, 3 * D), (D, D), (D, 4 * D), (4 * D, D)]:
        gemm(f"{batch}·{N}", batch * N, inputs, outputs, bias=True)
    gemm(f"{views}·{batch}", views * batch, 256, K)
for tokens, images in [(N, 2 * batch), ((local // 16) ** 2 + 1, locals_ * batch), *extra]:
    q, k, v = (rand(images, heads, tokens, D // heads).requires_grad_() for _ in range(3))
    dy = rand(images, heads, tokens, D // heads)
    shape = f"[{images}·{tokens}, 3·{D}]"
    with torch.no_grad():
        measure("attention", f"forward {shape}", lambda: F.scaled_dot_product_attention(q, k, v))
    measure("attention", f"forward and backward {shape}",
            lambda: torch.autograd.grad(F.scaled_dot_product_attention(q, k, v), (q, k, v), dy))
x, dy = rand(2 * batch * N, D).requires_grad_(), rand(2 * batch * N, D)
w, b = rand(D).requires_grad_(), rand(D).requires_grad_()
with torch.no_grad():
    measure("norm", f"forward [{len(x)}, {D}]", lambda: F.layer_norm(x, (D,), w, b, 1e-6))
measure("norm", f"forward and backward [{len(x)}, {D}]",
        lambda: torch.autograd.grad(F.layer_norm(x, (D,), w, b, 1e-6), (x, w, b), dy))
teacher, center, student = rand(2 * batch, K), rand(1, K), rand(views * batch, K).requires_grad_()
with torch.no_grad():
    measure("loss", f"centered softmax of [2·{batch}, {K}]", lambda: F.softmax((teacher - center) / 0.04, dim=-1))
targets = F.softmax(teacher, dim=-1).chunk(2)


def loss():
    predictions = F.log_softmax(student / 0.1, dim=-1).chunk(views)
    terms = [-(t * p).sum(-1).mean() for i, t in enumerate(targets) for j, p in enumerate(predictions) if i != j]
    return torch.autograd.grad(sum(terms) / len(terms), student)


measure("loss", f"cross-entropy and gradient of [{views}·{batch}, {K}]", loss)
del x, dy, w, b, teacher, center, student, targets
print(json.dumps(rows))
