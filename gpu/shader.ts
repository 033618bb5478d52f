// Kernels as text: putting a source together from its parts, and building each pipeline once.

/** A piece of WGSL with the name of the file it came from, so that a compile error can point there. */
export interface SourceFile {
  readonly file: string;
  readonly text: string;
}

/** What identifies a pipeline: sources, and the constants written in front of them. */
export interface Kernel {
  readonly name: string;
  readonly sources: readonly SourceFile[];
  /** Become `const NAME = value;`; whole numbers are u32. */
  readonly constants?: Readonly<Record<string, number>>;
  /** It names f16, which must be announced. */
  readonly half?: boolean;
}

/** A kernel made ready. */
export interface Pipeline {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/** The WGSL of a kernel, and which file and line each of its lines came from. */
export function assemble(kernel: Kernel): { code: string; origin: (line: number) => string } {
  const constants = Object.entries(kernel.constants ?? {}).map(([name, value]) => `const ${name} = ${value}u;`);
  const head = [...kernel.half ? ["enable f16;"] : [], ...constants].join("\n");
  const parts: SourceFile[] = [{ file: `${kernel.name} constants`, text: head }, ...kernel.sources];
  const starts: number[] = [];
  let line = 1;
  for (const { text } of parts) {
    starts.push(line);
    line += text.split("\n").length;
  }
  return {
    code: parts.map(({ text }) => text).join("\n"),
    origin: (at) => {
      const i = starts.findLastIndex((start) => start <= at);
      return i < 0 ? kernel.name : `${parts[i].file}:${at - starts[i] + 1}`;
    },
  };
}

/** Makes pipelines, each once; every storage binding is read-write so that one buffer may serve several slots. */
export class PipelineCache {
  readonly #pipelines = new Map<string, Promise<Pipeline>>();
  readonly #layouts = new Map<number, GPUBindGroupLayout>();

  constructor(readonly device: GPUDevice) {}

  /** Pipelines made so far. */
  get count(): number {
    return this.#pipelines.size;
  }

  /** The pipeline of `kernel` with `storage` storage bindings after the uniform one. Rejects {Error} with file and line. */
  get(kernel: Kernel, storage: number): Promise<Pipeline> {
    const key = `${kernel.name}/${storage}/${JSON.stringify(kernel.constants ?? {})}`;
    let made = this.#pipelines.get(key);
    if (!made) {
      made = this.#build(kernel, storage);
      this.#pipelines.set(key, made);
    }
    return made;
  }

  #layout(storage: number): GPUBindGroupLayout {
    let layout = this.#layouts.get(storage);
    if (!layout) {
      const buffers: GPUBufferBindingLayout[] = [
        { type: "uniform" },
        ...Array.from({ length: storage }, () => ({ type: "storage" as const })),
      ];
      layout = this.device.createBindGroupLayout({
        entries: buffers.map((buffer, binding) => ({ binding, visibility: 4, /* GPUShaderStage.COMPUTE */ buffer })),
      });
      this.#layouts.set(storage, layout);
    }
    return layout;
  }

  async #build(kernel: Kernel, storage: number): Promise<Pipeline> {
    const { code, origin } = assemble(kernel);
    const layout = this.#layout(storage);
    this.device.pushErrorScope("validation");
    const module = this.device.createShaderModule({ label: kernel.name, code });
    const pipeline = this.device.createComputePipeline({
      label: kernel.name,
      layout: this.device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: "main" },
    });
    const [error, info] = await Promise.all([
      this.device.popErrorScope(),
      module.getCompilationInfo?.() ?? Promise.resolve({ messages: [] }),
    ]);
    if (error) throw new Error(compileError(kernel, origin, info.messages, error.message));
    return { pipeline, layout };
  }
}

function compileError(
  kernel: Kernel,
  origin: (line: number) => string,
  messages: readonly { type: string; lineNum: number; message: string }[],
  summary: string,
): string {
  const located = messages.filter((m) => m.type === "error").map((m) => `${origin(m.lineNum)}: ${m.message}`);
  // Some implementations leave the list empty and put "wgsl:LINE:COLUMN" into the message instead.
  const line = /wgsl:(\d+):\d+/.exec(summary);
  if (located.length === 0 && line) located.push(`${origin(Number(line[1]))}: ${summary}`);
  return `webgpu: kernel ${kernel.name} does not compile on this driver: ${located.join("; ") || summary}`;
}
