"""Runs with timm and onnxruntime what denodino wrote of a ResNet, and writes what denodino shall read.

usage: python resnet.py FOLDER    prints one JSON object: versions
"""
import collections
import json
import os
import sys

import numpy as np
import onnxruntime
import timm
import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet

folder = sys.argv[1]
path = lambda name: os.path.join(folder, name)
square, oblong = (torch.from_numpy(np.load(path(name + ".npy"))) for name in ("square", "oblong"))
save = lambda name, value: np.save(path(name), np.ascontiguousarray(value.detach().numpy()))

# Ours in timm: the same names as torchvision's, a network of the same extents.
ours = ResNet(Bottleneck, [1, 2, 1, 1], num_classes=0).eval()
ours.load_state_dict(torch.load(path("ours.pth"), weights_only=True), strict=True)
save("timm_square.npy", ours(square))
save("timm_oblong.npy", ours(oblong))

for name, images in (("dynamic", square), ("dynamic", oblong), ("fixed", square)):
    session = onnxruntime.InferenceSession(path(name + ".onnx"), providers=["CPUExecutionProvider"])
    features, last_map = session.run(["features", "last_map"], {"pixel_values": images.numpy()})
    assert np.abs(last_map.mean(axis=(2, 3)) - features).max() < 1e-4
    np.save(path(f"onnx_{name}_{'square' if images is square else 'oblong'}.npy"), features)

# Theirs: a network of basic blocks with a classifier, after a training step so that its statistics are its own, in the layout
# of a supervised checkpoint behind DistributedDataParallel.
torch.manual_seed(0)
theirs = ResNet(BasicBlock, [1, 2, 1, 1], num_classes=5, zero_init_last=False)
theirs.train()(torch.randn(8, 3, 40, 40)).sum().backward()
theirs.eval()
state = collections.OrderedDict(("module." + name, value) for name, value in theirs.state_dict().items())
torch.save({"state_dict": state, "epoch": 3, "arch": "resnet"}, path("theirs.pth"))
save("theirs_oblong.npy", theirs.forward_head(theirs.forward_features(oblong), pre_logits=True))
print(json.dumps({"torch": torch.__version__, "timm": timm.__version__, "onnxruntime": onnxruntime.__version__}))
