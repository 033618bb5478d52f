"""One DINO update in PyTorch, to measure against: prints JSON with the median time, images/s and peak memory.

python tests/bench/pytorch_step.py --embed-dim 192 --num-heads 3 --batch-size 4 --threads 2
"""
import argparse
import json
import resource
import time

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, dim, heads, fused):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        B, N, D = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-2, -1) * (D // self.heads) ** -0.5, dim=-1) @ v
        return self.proj(y.transpose(1, 2).reshape(B, N, D))


class Block(nn.Module):
    def __init__(self, dim, heads, fused):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, fused)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, size, patch, dim, depth, heads, fused):
        super().__init__()
        self.side = size // patch
        self.patch_embed = nn.Conv2d(3, dim, patch, patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, self.side**2 + 1, dim) * 0.02)
        self.blocks = nn.Sequential(*[Block(dim, heads, fused) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def positions(self, grid):
        if grid == self.side:
            return self.pos_embed
        cls, patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        patches = patches.view(1, self.side, self.side, -1).permute(0, 3, 1, 2)
        scale = (grid + 0.1) / self.side
        patches = F.interpolate(patches, scale_factor=(scale, scale), mode="bicubic")
        return torch.cat([cls, patches.permute(0, 2, 3, 1).flatten(1, 2)], 1)

    def forward(self, images):
        x = self.patch_embed(images)
        grid = x.shape[-1]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + self.positions(grid)
        return self.norm(self.blocks(x))[:, 0]


class Head(nn.Module):
    def __init__(self, dim, out_dim, hidden, bottleneck):
        super().__init__()
        layers = [nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)]
        self.mlp = nn.Sequential(*layers)
        self.last = nn.utils.parametrizations.weight_norm(nn.Linear(bottleneck, out_dim, bias=False))

    def forward(self, x):
        return self.last(F.normalize(self.mlp(x), dim=-1))


class Network(nn.Module):
    def __init__(self, o):
        super().__init__()
        fused = o.attention == "fused"
        self.backbone = ViT(o.global_crop_size, o.patch_size, o.embed_dim, o.depth, o.num_heads, fused)
        self.head = Head(o.embed_dim, o.out_dim, o.hidden_dim, o.bottleneck_dim)

    def forward(self, groups):
        return self.head(torch.cat([self.backbone(group) for group in groups]))


def loss_of(student, teacher, center, views, teacher_temp=0.04, student_temp=0.1):
    targets = F.softmax((teacher - center) / teacher_temp, dim=-1).detach().chunk(2)
    predictions = F.log_softmax(student / student_temp, dim=-1).chunk(views)
    terms = [-(t * p).sum(-1).mean() for i, t in enumerate(targets) for j, p in enumerate(predictions) if i != j]
    return sum(terms) / len(terms)


def main():
    parser = argparse.ArgumentParser()
    for name, default in dict(patch_size=16, embed_dim=192, depth=12, num_heads=3, batch_size=4, global_crop_size=224,
                              local_crop_size=96, local_crops_number=8, out_dim=4096, hidden_dim=2048,
                              bottleneck_dim=256, threads=2, steps=5, warmup=1).items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
    parser.add_argument("--attention", choices=["explicit", "fused"], default="fused")
    parser.add_argument("--device", default="cpu")
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    student, teacher = Network(o).to(o.device), Network(o).to(o.device)
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, weight_decay=0.04)
    center = torch.zeros(1, o.out_dim, device=o.device)
    views = 2 + o.local_crops_number
    global_crops = torch.randn(2 * o.batch_size, 3, o.global_crop_size, o.global_crop_size, device=o.device)
    local_crops = torch.randn(o.local_crops_number * o.batch_size, 3, o.local_crop_size, o.local_crop_size, device=o.device)
    groups = [global_crops] + ([local_crops] if o.local_crops_number else [])
    finish = torch.cuda.synchronize if o.device.startswith("cuda") else lambda: None
    times = []
    for _ in range(o.warmup + o.steps):
        finish()
        start = time.perf_counter()
        with torch.no_grad():
            targets = teacher([global_crops])
        loss = loss_of(student(groups), targets, center, views)
        optimizer.zero_grad()
        loss.backward()
        for p in student.parameters():
            if p.grad is not None:
                norm = p.grad.norm(2)
                p.grad.mul_(torch.clamp(3.0 / (norm + 1e-6), max=1.0))
        optimizer.step()
        with torch.no_grad():
            for p, q in zip(teacher.parameters(), student.parameters()):
                p.mul_(0.996).add_(q, alpha=0.004)
            center.mul_(0.9).add_(targets.mean(0, keepdim=True), alpha=0.1)
        finish()
        times.append(time.perf_counter() - start)
    times = sorted(times[o.warmup:])
    median = times[len(times) // 2]
    print(json.dumps({
        "name": "step", "library": f"pytorch {torch.__version__}", "threads": o.threads, "attention": o.attention,
        "median_ms": median * 1e3, "min_ms": times[0] * 1e3, "images_per_second": o.batch_size / median,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "peak_gpu_mb": torch.cuda.max_memory_allocated() / 2**20 if o.device.startswith("cuda") else None,
    }))


if __name__ == "__main__":
    main()
