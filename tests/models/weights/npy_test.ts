// numpy's formats: headers as numpy writes them, arrays of any order and type, and files that contradict themselves.

import { writeNpy, writeNpz } from "../../../models/weights/npy.ts";
import { openWeights } from "../../../models/weights/open.ts";
import { bytesSource, type TensorToWrite } from "../../../models/weights/safetensors.ts";
import { toFloat64 } from "../../../models/weights/tensor_file.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";

const three: TensorToWrite = {
  name: "x",
  dtype: "F32",
  shape: [3],
  bytes: () => new Uint8Array(Float32Array.of(1, 2, 3).buffer),
};

/** A version 1 file with this header and these bytes behind it. */
function forge(header: string, data: Uint8Array, major = 1): Uint8Array {
  const text = new TextEncoder().encode(header);
  const file = new Uint8Array(10 + text.length + data.length);
  file.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, major, 0, text.length & 255, text.length >> 8]);
  file.set(text, 10);
  file.set(data, 10 + text.length);
  return file;
}

Deno.test("npy: the header is padded to 64 bytes and ends in a line end; npz holds several", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await writeNpy(`${folder}/a.npy`, three);
    const file = await Deno.readFile(`${folder}/a.npy`);
    const text = new TextDecoder("latin1").decode(file.subarray(0, file.length - 12));
    assertEquals(text.length % 64, 0);
    assertEquals([...file.subarray(0, 8)], [0x93, ...new TextEncoder().encode("NUMPY"), 1, 0]);
    assert(text.includes("'descr': '<f4', 'fortran_order': False, 'shape': (3,)") && text.endsWith("\n"));
    const scalar: TensorToWrite = { name: "n", dtype: "I64", shape: [], bytes: () => new Uint8Array(8).fill(255) };
    await writeNpz(`${folder}/a.npz`, [three, scalar]);
    const opened = await openWeights(`${folder}/a.npz`);
    const values = await Promise.all(
      [...opened.tensors.values()].map(async (info) => [...toFloat64(info.dtype, await opened.read(info))]),
    );
    assertEquals(values, [[1, 2, 3], [-1]]);
    opened.close();
    await assertRejects(() => writeNpy(`${folder}/b.npy`, { ...three, dtype: "BF16" }), TypeError, "numpy has no type");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("npy: column-major arrays are turned; what is no array of numbers is refused", async () => {
  const data = new Uint8Array(Int16Array.of(1, 2, 3, 4, 5, 6).buffer);
  const open = (file: Uint8Array) => openWeights(bytesSource(file, "x.npy"));
  const turned = await open(forge("{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3), }", data));
  const [info] = turned.tensors.values();
  assertEquals([...toFloat64(info.dtype, await turned.read(info))], [1, 3, 5, 2, 4, 6]);
  for (
    const [header, message] of [
      ["{'descr': '<i2', 'fortran_order': False, 'shape': (2, 4), }", "takes 16 bytes, but has 12"],
      ["{'descr': '<i2', 'fortran_order': False, 'shape': (9999999999999999999, 3), }", "has shape"],
      ["{'descr': [('a', '<i2')], 'fortran_order': False, 'shape': (6,), }", "no description"],
      ["__import__('os').system('true')", "no description"],
    ] as const
  ) await assertRejects(() => open(forge(header, data)), SyntaxError, message);
  for (const code of [">i2", "|O8", "<U3", "constructor"]) {
    await assertRejects(
      () => open(forge(`{'descr': '${code}', 'fortran_order': False, 'shape': (6,), }`, data)),
      TypeError,
      code,
    );
  }
  await assertRejects(() => open(forge("{}", data, 9)), SyntaxError, "version 9");
  await assertRejects(() => open(forge("{}", data).subarray(0, 11)), SyntaxError, "too short");
});
