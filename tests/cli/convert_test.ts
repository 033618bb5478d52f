// `dino convert` and `dino inspect`: every way round, what they say, and what they refuse.

import { main as convert } from "../../cli/convert.ts";
import { main as inspect } from "../../cli/inspect.ts";
import { encodeSafetensors } from "../../models/weights/safetensors.ts";
import { vitConfig, vitShapes } from "../../models/vit.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { TOY, toyTensors } from "../models/weights/toy_vit.ts";

/** Runs a command and collects what it prints. */
async function run(command: (words: readonly string[]) => Promise<number>, ...words: string[]) {
  const { log, error } = console;
  const printed: string[] = [];
  console.log = console.error = (...parts: unknown[]) => void printed.push(parts.join(" "));
  try {
    return { code: await command(words), text: printed.join("\n") };
  } finally {
    console.log = log;
    console.error = error;
  }
}

Deno.test("convert: a chain through every format ends where it began; inspect follows", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const at = (name: string) => `${folder}/${name}`;
    await Deno.writeFile(at("0.safetensors"), await encodeSafetensors(toyTensors(TOY, "teacher.backbone.")));
    const chain = ["0.safetensors", "1.pth", "hf", "2.onnx", "3.npz", "4.safetensors"];
    for (let i = 1; i < chain.length; i++) {
      const { code, text } = await run(convert, at(chain[i - 1]), at(chain[i]), "--num-heads", "3");
      assertEquals(code, 0, text);
      assertStringIncludes(text, "30 tensors");
    }
    assertEquals(await Deno.readFile(at("4.safetensors")).then((b) => b.length > 0), true);
    const stats = async (name: string) => {
      const { code, text } = await run(inspect, at(name), "--json", "--num-heads", "3");
      assertEquals(code, 0, text);
      const { tensors } = JSON.parse(text);
      return tensors.map((
        { name, mean, std, shape }: Record<string, unknown>,
      ) => [String(name).replace("teacher.backbone.", ""), mean, std, shape])
        .sort();
    };
    const first = await stats(chain[0]);
    for (const name of [chain[1], chain[3], chain[4], chain[5]]) assertEquals(await stats(name), first);
    const { text } = await run(inspect, at("hf"), "--match", "query.weight");
    assertStringIncludes(text, "3 heads");
    assertStringIncludes(text, "Hugging Face");
    assertEquals(text.split("\n").filter((line) => line.includes("query.weight")).length, 2);

    const again = await run(convert, at("1.pth"), at("4.safetensors"));
    assertEquals(again.code, 2);
    assertStringIncludes(again.text, "--overwrite");
    assertEquals((await run(convert, at("1.pth"), at("4.safetensors"), "--overwrite", "--quiet")).text, "");
    for (
      const [words, message] of [
        [[at("nothing"), at("x.pth")], "no such"],
        [[at("1.pth"), at("x.gguf")], ".gguf"],
        [[at("1.pth")], "two paths"],
        [[at("1.pth"), at("x.pth"), "--dtyp", "float16"], "--dtype"],
        [[folder, at("x.pth")], "neither a run folder nor one of weights"],
      ] as const
    ) {
      const { code, text } = await run(convert, ...words);
      assertEquals(code, 2, text);
      assertStringIncludes(text, message);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("inspect: knows a published layout, and control characters never reach the terminal", async () => {
  const folder = await Deno.makeTempDir();
  try {
    // Shapes alone tell; elements of half a byte would do, so they are all of the smallest type.
    const small = vitConfig({ embedDim: 384, depth: 12, numHeads: 6, patchSize: 16 });
    const tensors = vitShapes(small).map(([name, shape]) => ({
      name,
      dtype: "F16" as const,
      shape,
      bytes: () => new Uint8Array(2 * shape.reduce((a, b) => a * b, 1)),
    }));
    await Deno.writeFile(`${folder}/s.safetensors`, await encodeSafetensors(tensors));
    const { text } = await run(inspect, `${folder}/s.safetensors`, "--no-stats");
    assertStringIncludes(text, "by names and shapes this is the published dino_deitsmall16_pretrain.pth");
    assertStringIncludes(text, "21 665 664 parameters");
    const complete = await run(inspect, `${folder}/s.safetensors`, "--no-stats", "--check");
    assertEquals(complete.code, 0, complete.text);
    const damaged = tensors.filter(({ name }) => name !== "blocks.3.norm1.bias").map((t) => {
      return t.name === "norm.weight" ? { ...t, shape: [2, 192] } : t;
    });
    const extra = { ...tensors[0], name: "head.weight" };
    await Deno.writeFile(`${folder}/damaged.safetensors`, await encodeSafetensors([...damaged, extra]));
    const report = await run(inspect, `${folder}/damaged.safetensors`, "--no-stats", "--keys", "--check");
    assertEquals(report.code, 2, report.text);
    for (
      const line of [
        "missing     backbone.blocks.3.norm1.bias",
        "other shape backbone.norm.weight [2,192], wanted [384]",
        "not used    head.weight",
        "its network is not complete",
      ]
    ) assertStringIncludes(report.text, line);
    const odd = {
      name: "a\x1b[2Jb\u202ec",
      dtype: "F32" as const,
      shape: [2],
      bytes: () => new Uint8Array(new Float32Array([NaN, 2]).buffer),
    };
    await Deno.writeFile(`${folder}/odd.safetensors`, await encodeSafetensors([odd]));
    const printed = (await run(inspect, `${folder}/odd.safetensors`)).text;
    // deno-lint-ignore no-control-regex
    assert(!/[\x1b\u202e]/.test(printed));
    assertStringIncludes(printed, "1 not finite");
    assertStringIncludes(printed, "is not one of the published files");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
