// Flags of the reference's evaluation scripts that have no meaning here, with what takes their place.

const DISTRIBUTED = {
  "local-rank": "one process computes: leave it out",
  "dist-url": "one process computes: leave it out",
  "arch": "the file of weights says it: leave it out",
  "patch-size": "the file of weights says it: leave it out",
};

/** By command; `--help` of none lists them. */
export const REFUSED_FLAGS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  knn: {
    ...DISTRIBUTED,
    "use-cuda": "choose a device with --backend",
    "dump-features": "features are written by: dino features RUN --data DIR --out features.safetensors",
    "load-features": "features are computed anew: leave it out",
  },
  linear: {
    ...DISTRIBUTED,
    "avgpool-patchtokens": "say how: --patch-average interleaved is the reference's order",
    "num-labels": "the folders say how many classes there are: leave it out",
    "output-dir": "name the file of the classifiers: --out probe.safetensors",
  },
  retrieval: {
    ...DISTRIBUTED,
    "dataset": "name the published ground truth: --ground-truth gnd_roxford5k.pkl",
    "use-cuda": "choose a device with --backend",
  },
  copy_detection: {
    ...DISTRIBUTED,
    "use-cuda": "choose a device with --backend",
    "batch-size-per-gpu": "leave it out",
  },
  video_segmentation: { ...DISTRIBUTED, "bs": "frames depend on each other, one is computed at a time: leave it out" },
  attention: {
    ...DISTRIBUTED,
    "resize": "the shorter side is set by --image-size",
    "video-only": "--video writes the film alone where --out is left out",
    "video-format": "the name of the film says it: --video film.mp4",
  },
};
