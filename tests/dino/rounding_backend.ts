// The float64 reference backend, its persistent tensors rounded to float32 after every run, as a device keeps them.

import type { Executable } from "../../models/graph/backend.ts";
import type { Communicator } from "../../models/graph/communicator.ts";
import type { Program } from "../../models/graph/program.ts";
import { ReferenceBackend } from "../../models/graph/reference.ts";

/** What a checkpoint holds is then all there is to know of a run. */
export class RoundingBackend extends ReferenceBackend {
  override async compile(program: Program, communicator?: Communicator): Promise<Executable> {
    const executable = await super.compile(program, communicator);
    const kept = program.roots().filter(({ role, dtype }) => role !== "activation" && dtype === "f32");
    return {
      ...executable,
      run: async () => {
        await executable.run();
        for (const tensor of kept) {
          const values = this.at(tensor);
          for (let i = 0; i < values.length; i++) values[i] = Math.fround(values[i]);
        }
      },
    };
  }
}
