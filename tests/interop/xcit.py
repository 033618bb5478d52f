"""Runs with timm and onnxruntime what denodino wrote of an XCiT, and writes what denodino shall read.

usage: python xcit.py FOLDER    prints one JSON object: versions
"""
import json
import os
import sys

import numpy as np
import onnxruntime
import timm
import torch
from timm.models.xcit import Xcit, checkpoint_filter_fn

folder = sys.argv[1]
path = lambda name: os.path.join(folder, name)
square, oblong = (torch.from_numpy(np.load(path(name + ".npy"))) for name in ("square", "oblong"))
save = lambda name, value: np.save(path(name), np.ascontiguousarray(value.detach().numpy()))
sizes = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, eta=1.0, tokens_norm=True, num_classes=0)

# Ours in timm: its own filter turns the release's names into timm's.
ours = Xcit(**sizes).eval()
ours.load_state_dict(checkpoint_filter_fn(torch.load(path("ours.pth"), weights_only=True), ours), strict=True)
save("timm_square.npy", ours(square))
save("timm_oblong.npy", ours(oblong))

for name, images in (("dynamic", square), ("dynamic", oblong), ("fixed", square)):
    session = onnxruntime.InferenceSession(path(name + ".onnx"), providers=["CPUExecutionProvider"])
    wanted = ["features", "last_hidden_state"] + (["attention"] if name == "dynamic" else [])
    features, tokens, *attention = session.run(wanted, {"pixel_values": images.numpy()})
    assert np.abs(tokens[:, 0] - features).max() == 0
    kind = "square" if images is square else "oblong"
    np.save(path(f"onnx_{name}_{kind}.npy"), features)
    if attention:
        np.save(path(f"onnx_attention_{kind}.npy"), attention[0])

# Theirs, under timm's names, after a training step so that its statistics are its own.
torch.manual_seed(0)
theirs = Xcit(**{**sizes, "patch_size": 16, "num_classes": 5})
theirs.train()(torch.randn(4, 3, 32, 48)).sum().backward()
theirs.eval()
torch.save(theirs.state_dict(), path("theirs.pth"))
save("theirs_oblong.npy", theirs.forward_head(theirs.forward_features(oblong), pre_logits=True))
print(json.dumps({"torch": torch.__version__, "timm": timm.__version__, "onnxruntime": onnxruntime.__version__}))
