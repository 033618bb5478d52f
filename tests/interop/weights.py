"""Loads with PyTorch, timm, transformers and onnxruntime what denodino wrote, and writes what denodino shall load.

usage: python weights.py FOLDER    prints one JSON object: versions, and the parts that could not be done with their reasons
"""
import argparse
import collections
import json
import os
import sys

import numpy as np
import torch

folder = sys.argv[1]
path = lambda name: os.path.join(folder, name)
report = {"torch": torch.__version__, "missing": {}}
square = torch.from_numpy(np.load(path("square.npy")))
oblong = torch.from_numpy(np.load(path("oblong.npy")))
sizes = dict(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3, num_classes=0)


def save(name, tensor):
    np.save(path(name), np.ascontiguousarray(tensor.detach().float().numpy()))


def part(name):
    def run(function):
        try:
            function()
        except ImportError as error:
            report["missing"][name] = str(error)[:200]
    return run


state = torch.load(path("ours.pth"), weights_only=True)
full = torch.load(path("ours_full.pth"), weights_only=True)
assert list(full) == ["teacher"] and "head.mlp.0.weight" in full["teacher"], list(full)
save("pth_cls_token.npy", state["cls_token"])
with np.load(path("ours.npz")) as arrays:
    np.save(path("npz_cls_token.npy"), arrays["cls_token"])
np.savez_compressed(path("theirs.npz"), **{name: value.numpy() for name, value in state.items()})
np.savez(path("theirs_plain.npz"), turned=np.asfortranarray(np.arange(12.0).reshape(3, 4)))
half = torch.load(path("ours_half.pth"), weights_only=True)
assert half["norm.weight"].dtype == torch.bfloat16
save("half_cls_token.npy", half["cls_token"])

# The layout of the release's full checkpoints, from the weights above, in both containers.
wrapped = collections.OrderedDict(("module.backbone." + name, value + 1) for name, value in state.items())
wrapped["module.head.last_layer.weight_g"] = torch.ones(7, 1, dtype=torch.float16)
checkpoint = {
    "student": wrapped,
    "teacher": collections.OrderedDict(("backbone." + name, value) for name, value in state.items()),
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": state["cls_token"] * 0}},
                  "param_groups": [{"lr": np.float64(0.1), "betas": (0.9, 0.999), "params": [0]}]},
    "epoch": 3,
    "args": argparse.Namespace(arch="vit_small", patch_size=8, data_path="/images"),
    "dino_loss": {"center": torch.zeros(1, 7)},
}
torch.save(checkpoint, path("theirs_zip.pth"))
torch.save(checkpoint, path("theirs_legacy.pth"), _use_new_zipfile_serialization=False)
torch.save(torch.nn.Linear(2, 3), path("theirs_module.pth"))
# Views of one storage, an expanded bias, a transposed matrix, and half precision in between.
base = torch.arange(4000, dtype=torch.float32).reshape(50, 80)
torch.save({"slice": base[3:9, 10:20], "turned": base.t(), "far": base[:, 79], "row": base[7],
            "wide": base[0:1, 0:5].expand(6, 5), "b": torch.tensor([1.5, -2.25]).bfloat16(),
            "parameter": torch.nn.Parameter(base[:2, :2])}, path("theirs_views.pth"))
save("views_turned.npy", base.t())
save("views_slice.npy", base[3:9, 10:20])
save("views_far.npy", base[:, 79])


@part("timm")
def _():
    import timm
    from timm.models.vision_transformer import VisionTransformer
    report["timm"] = timm.__version__
    model = VisionTransformer(**sizes, norm_layer=lambda d, **k: torch.nn.LayerNorm(d, eps=1e-6, **k)).eval()
    model.load_state_dict(state, strict=True)
    save("timm_square.npy", model.forward_features(square))
    torch.manual_seed(0)
    dinov2 = VisionTransformer(**sizes, init_values=0.3, norm_layer=lambda d, **k: torch.nn.LayerNorm(d, eps=1e-6, **k)).eval()
    with torch.no_grad():
        for name, parameter in dinov2.named_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    torch.save(dinov2.state_dict(), path("theirs_timm.pth"))
    save("theirs_timm.npy", dinov2.forward_features(square))
    registers = VisionTransformer(**sizes, init_values=0.3, reg_tokens=4, no_embed_class=True,
                                  norm_layer=lambda d, **k: torch.nn.LayerNorm(d, eps=1e-6, **k)).eval()
    with torch.no_grad():
        for name, parameter in registers.named_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    torch.save(registers.state_dict(), path("theirs_timm_registers.pth"))
    save("theirs_timm_registers.npy", registers.forward_features(square))


@part("transformers")
def _():
    import transformers
    from transformers import ViTConfig, ViTModel, ViTImageProcessor
    report["transformers"] = transformers.__version__
    model, info = ViTModel.from_pretrained(path("ours_hf"), add_pooling_layer=False, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    assert ViTImageProcessor.from_pretrained(path("ours_hf")).size["height"] == 32
    save("hf_square.npy", model.eval()(square).last_hidden_state)
    torch.manual_seed(1)
    config = ViTConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, image_size=32,
                       patch_size=8, layer_norm_eps=1e-4, qkv_bias=False)
    theirs = ViTModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs.save_pretrained(path("theirs_hf"), max_shard_size="60KB")
    save("theirs_hf.npy", theirs(square).last_hidden_state)
    # DINOv2: layer scales, a mask token, other names; without registers and with them.
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel
    small = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=32, patch_size=8)
    dinov2 = Dinov2Model(Dinov2Config(**small)).eval()
    with torch.no_grad():
        for parameter in dinov2.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    dinov2.save_pretrained(path("theirs_dinov2"))
    save("theirs_dinov2.npy", dinov2(square).last_hidden_state)
    registers = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**small)).eval()
    with torch.no_grad():
        for parameter in registers.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    registers.save_pretrained(path("theirs_registers"))
    save("theirs_registers.npy", registers(square).last_hidden_state)


@part("onnxruntime")
def _():
    import onnxruntime
    report["onnxruntime"] = onnxruntime.__version__
    for name, images in [("dynamic", square), ("dynamic", oblong), ("fixed", square), ("registers", oblong)]:
        session = onnxruntime.InferenceSession(path(name + ".onnx"), providers=["CPUExecutionProvider"])
        outputs = [output.name for output in session.get_outputs()]
        values = dict(zip(outputs, session.run(None, {"pixel_values": images.numpy()})))
        shape = "square" if images is square else "oblong"
        for output, value in values.items():
            np.save(path(f"onnx_{name}_{shape}_{output}.npy"), value)
    try:
        import onnx
        onnx.checker.check_model(path("dynamic.onnx"), full_check=True)
        report["onnx"] = onnx.__version__
    except ImportError as error:
        report["missing"]["onnx"] = str(error)[:200]


print(json.dumps(report))
