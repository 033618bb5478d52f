// A backbone's weights on a device, ready to be looked up by their published names.

import { backboneBufferShapes, backboneShapes } from "../../models/backbone.ts";
import type { Backend } from "../../models/graph/backend.ts";
import { type Tensor, tensor } from "../../models/graph/tensor.ts";
import type { Parameters } from "../../models/vit.ts";
import type { LoadedWeights } from "../load_weights.ts";

/** Parameters on a device. */
export interface UploadedBackbone {
  /** Finds a parameter by its published name. */
  readonly parameters: Parameters;
  /** Frees them. */
  dispose(): void;
}

/**
 * Writes the weights of a backbone to a device.
 *
 * @throws {SyntaxError} if one is missing or of another shape than its architecture says
 */
export function uploadBackbone(
  backend: Backend,
  { weights, backbone, path }: Pick<LoadedWeights, "weights" | "backbone" | "path">,
): UploadedBackbone {
  const parameters = new Map<string, Tensor>();
  for (const [name, shape] of [...backboneShapes(backbone), ...backboneBufferShapes(backbone)]) {
    const found = weights.get(`backbone.${name}`);
    if (!found || found.data.length !== shape.reduce((a, b) => a * b, 1)) {
      const what = found ? `is [${found.shape}], not [${shape}]` : "is missing";
      throw new SyntaxError(`${path}: backbone.${name} ${what}`);
    }
    const t = tensor(name, shape, "param");
    backend.write(t, found.data);
    parameters.set(name, t);
  }
  return {
    parameters: (name) => {
      const found = parameters.get(name);
      if (!found) throw new SyntaxError(`${path}: backbone.${name} is missing`);
      return found;
    },
    dispose: () => backend.free(...parameters.values()),
  };
}
