// The safetensors reader against hostile files, and the writer against the reader.

import {
  bytesSource,
  encodeSafetensors,
  openFileSource,
  readFloats,
  readSafetensorsHeader,
  readTensorBytes,
  safetensorsSize,
  type TensorToWrite,
  writeSafetensors,
} from "../../../models/weights/safetensors.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";

function f32(name: string, shape: number[], values: number[]): TensorToWrite {
  return { name, dtype: "F32", shape, bytes: () => new Uint8Array(new Float32Array(values).buffer) };
}

/** A file made by hand: what a header says need not be true. */
function forge(header: string | object, data = 0, declared?: number): Uint8Array {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const file = new Uint8Array(8 + json.length + data);
  new DataView(file.buffer).setBigUint64(0, BigInt(declared ?? json.length), true);
  file.set(json, 8);
  return file;
}

Deno.test("safetensors: what is written is read back, aligned, with its metadata", async () => {
  const tensors: TensorToWrite[] = [
    { name: "odd", dtype: "U8", shape: [3], bytes: () => Uint8Array.of(1, 2, 3) },
    f32("a.weight", [2, 3], [1, 2, 3, 4, 5, -6]),
    f32("scalar", [], [7]),
    f32("empty", [0, 4], []),
    { name: "steps", dtype: "I64", shape: [1], bytes: () => new Uint8Array(BigInt64Array.of(5n).buffer) },
    {
      name: "ünïcode \"'\\ name",
      dtype: "F64",
      shape: [1],
      bytes: () => new Uint8Array(new Float64Array([0.1]).buffer),
    },
  ];
  const file = await encodeSafetensors(tensors, { format: "pt", note: 'quotes " and \u2028' });
  assertEquals(file.length, safetensorsSize(tensors, { format: "pt", note: 'quotes " and \u2028' }));
  const source = bytesSource(file);
  const { tensors: records, metadata } = await readSafetensorsHeader(source);
  assertEquals(metadata, { format: "pt", note: 'quotes " and \u2028' });
  assertEquals([...records.keys()].sort(), tensors.map((t) => t.name).sort());
  for (const t of tensors) {
    const record = records.get(t.name)!;
    assertEquals([record.dtype, record.shape], [t.dtype, t.shape]);
    assertEquals(record.start % (record.byteLength / Math.max(1, t.shape.reduce((a, b) => a * b, 1)) || 1), 0);
    assertEquals(await readTensorBytes(source, record), await t.bytes() as Uint8Array<ArrayBuffer>);
  }
  assertEquals([...await readFloats(source, records.get("a.weight")!)], [1, 2, 3, 4, 5, -6]);
});

Deno.test("safetensors: half floats widen exactly and integers are refused as floats", async () => {
  const file = await encodeSafetensors([
    { name: "h", dtype: "F16", shape: [3], bytes: () => new Uint8Array(new Float16Array([1.5, -0.25, 65504]).buffer) },
    { name: "b", dtype: "BF16", shape: [2], bytes: () => new Uint8Array(Uint16Array.of(0x3fc0, 0xc000).buffer) },
    { name: "i", dtype: "I32", shape: [1], bytes: () => new Uint8Array(4) },
  ]);
  const source = bytesSource(file);
  const { tensors } = await readSafetensorsHeader(source);
  assertEquals([...await readFloats(source, tensors.get("h")!)], [1.5, -0.25, 65504]);
  assertEquals([...await readFloats(source, tensors.get("b")!)], [1.5, -2]);
  await assertRejects(() => readFloats(source, tensors.get("i")!), TypeError, '"i" is I32');
});

Deno.test("safetensors: hostile files are refused by name of what is wrong", async () => {
  const one = (entry: object) => ({ w: { dtype: "F32", shape: [2], data_offsets: [0, 8], ...entry } });
  const hostile: [string, Uint8Array, string][] = [
    ["empty file", new Uint8Array(0), "too few"],
    ["seven bytes", new Uint8Array(7), "too few"],
    ["huge header", forge("{}", 0, 2 ** 40), "not believable"],
    ["header past the end", forge("{}", 0, 90), "truncated"],
    ["not JSON", forge("{nope}"), "not JSON"],
    [
      "not UTF-8",
      (() => {
        const file = forge("{}  ");
        file[9] = 0xff;
        return file;
      })(),
      "not JSON in UTF-8",
    ],
    ["an array", forge("[1]"), "not a JSON object"],
    ["deeply nested", forge("[".repeat(200_000)), "not JSON"],
    ["metadata of numbers", forge({ __metadata__: { a: 1 } }), "object of strings"],
    ["a tensor that is a number", forge({ w: 4 }), 'tensor "w"'],
    ["unknown dtype", forge(one({ dtype: "F128" }), 8), "F128"],
    ["dtype of the prototype", forge(one({ dtype: "constructor" }), 8), "constructor"],
    ["negative extent", forge(one({ shape: [-2] }), 8), "shape [-2]"],
    ["fractional extent", forge(one({ shape: [0.5, 4] }), 8), "shape"],
    ["product beyond 2^53", forge(one({ shape: [2 ** 40, 2 ** 40] }), 8), "takes"],
    ["offsets reversed", forge(one({ data_offsets: [8, 0] }), 8), "data_offsets"],
    ["one offset", forge(one({ data_offsets: [8] }), 8), "data_offsets"],
    ["size that disagrees", forge(one({ data_offsets: [0, 4] }), 8), "takes 8 bytes, but has 4"],
    ["data past the end", forge(one({}), 7), "truncated"],
    ["overlap", forge({ ...one({}), v: { dtype: "F32", shape: [1], data_offsets: [4, 8] } }, 8), "overlaps"],
    ["a hole", forge(one({ data_offsets: [4, 12] }), 12), "belong to none"],
    ["bytes behind", forge(one({}), 9), "belong to no tensor"],
    [
      "duplicate key",
      forge(
        '{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}, "\\u0077" :{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        1,
      ),
      '"w" is described twice',
    ],
  ];
  for (const [what, file, message] of hostile) {
    const error = await assertRejects(() => readSafetensorsHeader(bytesSource(file, "x.safetensors")), SyntaxError);
    assert(error.message.includes(message) && error.message.includes("x.safetensors"), `${what}: ${error.message}`);
  }
});

Deno.test("safetensors: a failing write leaves the previous file as it was", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/a.safetensors`;
    await writeSafetensors(path, [f32("w", [1], [1])]);
    const before = await Deno.readFile(path);
    const broken = {
      name: "v",
      dtype: "F32" as const,
      shape: [1],
      bytes: () => Promise.reject(new Error("disk full")),
    };
    await assertRejects(() => writeSafetensors(path, [f32("w", [1], [2]), broken]), Error, "disk full");
    await assertRejects(() => writeSafetensors(path, [f32("w", [3], [2])]), RangeError, "4 bytes for F32 [3]");
    await assertRejects(() => writeSafetensors(path, [f32("w", [1], [2]), f32("w", [1], [3])]), TypeError, "taken");
    assertEquals(await Deno.readFile(path), before);
    assertEquals([...Deno.readDirSync(folder)].map((e) => e.name), ["a.safetensors"]);

    const source = await openFileSource(path);
    const { tensors } = await readSafetensorsHeader(source);
    const record = tensors.get("w")!;
    // Readers may overlap: each gets its own range.
    const [a, head, b] = await Promise.all([readFloats(source, record), source.read(0, 8), readFloats(source, record)]);
    assertEquals([a[0], head.length, b[0]], [1, 8, 1]);
    await Deno.truncate(path, 20);
    await assertRejects(() => readFloats(source, record), SyntaxError, "truncated");
    source.close!();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
