"""A ResNet-50 in PyTorch, to measure against: features of a batch, or with --train their gradients too; the faster of both memory
layouts counts. Prints JSON with median time, images/s and peak memory.

python tests/bench/pytorch_resnet.py --batch-size 4 --size 224 --threads 2
"""
import argparse
import json
import resource
import time

import torch
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, inputs, planes, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, planes, 1, bias=False), nn.BatchNorm2d(planes), nn.ReLU(inplace=True),
            nn.Conv2d(planes, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes), nn.ReLU(inplace=True),
            nn.Conv2d(planes, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes))
        changes = stride > 1 or inputs != 4 * planes
        self.downsample = nn.Sequential(
            nn.Conv2d(inputs, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes)) if changes else nn.Identity()

    def forward(self, x):
        return torch.relu_(self.body(x) + self.downsample(x))


def resnet50():
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, (blocks, planes) in enumerate(zip([3, 4, 6, 3], [64, 128, 256, 512])):
        for block in range(blocks):
            layers.append(Bottleneck(inputs, planes, 2 if stage and not block else 1))
            inputs = 4 * planes
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=4)
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--runs", type=int, default=5)
parser.add_argument("--train", action="store_true")
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(0)


def median_of(layout):
    net = resnet50().train(args.train).to(memory_format=layout)
    x = torch.randn(args.batch_size, 3, args.size, args.size).to(memory_format=layout)
    times = []
    for run in range(args.runs + 1):
        start = time.perf_counter()
        if args.train:
            net(x).sum().backward()
        else:
            with torch.inference_mode():
                net(x)
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[args.runs // 2]


seconds = min(median_of(layout) for layout in (torch.contiguous_format, torch.channels_last))
print(json.dumps([{
    "name": "train" if args.train else "forward",
    "shape": f"resnet50, batch {args.batch_size}, {args.size} px",
    "median_ms": 1000 * seconds,
    "images_per_second": args.batch_size / seconds,
    "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "torch": torch.__version__,
}]))
