// Files of several gigabytes: holes on the disk, of which only the ranges that hold something are ever read.

import { openWeights } from "../../../models/weights/open.ts";
import { readFloat32 } from "../../../models/weights/tensor_file.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";

const BIG = 1_500_000_000; // float32 elements: 6 GB
const SMALL = Float32Array.of(1, -2, 3.5);

/** Opcodes as text, each character a byte. */
const raw = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0));
const u32 = (value: number) => String.fromCharCode(...new Uint8Array(Uint32Array.of(value).buffer));
const text = (value: string) => `X${u32(value.length)}${value}`;
const tensor = (key: string, count: number, shape: string, strides: string) =>
  `ctorch._utils\n_rebuild_tensor_v2\n((${text("storage")}ctorch\nFloatStorage\n${text(key)}${text("cpu")}J${
    u32(count)
  }NtQ` +
  `K\x00(${shape}t(${strides}t\x89ccollections\nOrderedDict\n)RtR`;

async function writeStream(path: string, claimed = BIG) {
  const object = `\x80\x02}(${text("big")}${tensor("0", BIG, `J${u32(BIG)}`, "K\x01")}${text("thin")}` +
    `${tensor("0", BIG, `J${u32(4)}`, `J${u32(BIG / 4)}`)}${text("small")}${tensor("1", 3, "K\x03", "K\x01")}u.`;
  const head = raw(
    "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + "\x80\x02M\xe9\x03." +
      `\x80\x02}${text("little_endian")}\x88s.${object}\x80\x02](${text("0")}${text("1")}e.`,
  );
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  await file.write(head);
  await file.write(new Uint8Array(BigInt64Array.of(BigInt(claimed)).buffer));
  await file.seek(head.length + 8 + 4 * BIG, Deno.SeekMode.Start);
  await file.write(new Uint8Array(BigInt64Array.of(3n).buffer));
  await file.write(new Uint8Array(SMALL.buffer));
}

async function writeSafetensors(path: string) {
  const header = JSON.stringify({
    big: { dtype: "F32", shape: [BIG], data_offsets: [0, 4 * BIG] },
    small: { dtype: "F32", shape: [3], data_offsets: [4 * BIG, 4 * BIG + 12] },
  }).padEnd(200);
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  await file.write(new Uint8Array(BigUint64Array.of(200n).buffer));
  await file.write(new TextEncoder().encode(header));
  await file.seek(208 + 4 * BIG, Deno.SeekMode.Start);
  await file.write(new Uint8Array(SMALL.buffer));
}

// Only some file systems can leave out what was never written.
const ignore = Deno.build.os !== "linux";
if (ignore) console.log(`weights of several gigabytes: skipped: ${Deno.build.os} may not write sparse files`);

Deno.test({
  name: "weights: of six gigabytes only what is asked for is read",
  ignore,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      const before = Deno.memoryUsage().rss;
      await writeStream(`${folder}/a.pth`);
      await writeSafetensors(`${folder}/a.safetensors`);
      for (const name of ["a.pth", "a.safetensors"]) {
        const file = await openWeights(`${folder}/${name}`);
        assertEquals([...file.tensors.get("big")!.shape], [BIG]);
        assertEquals([...await readFloat32(file, file.tensors.get("small")!)], [...SMALL]);
        const thin = file.tensors.get("thin"); // four elements, a gigabyte and a half from one to the next
        if (thin) assertEquals([...await readFloat32(file, thin)], [0, 0, 0, 0]);
        file.close();
      }
      assert(Deno.memoryUsage().rss - before < 300e6, `grew by ${Deno.memoryUsage().rss - before} bytes`);
      await writeStream(`${folder}/b.pth`, BIG - 1);
      await assertRejects(() => openWeights(`${folder}/b.pth`), SyntaxError, "its tensors expect 1500000000");
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
