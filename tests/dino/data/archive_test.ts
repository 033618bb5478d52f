// Archives: members, classes and order; cut, lying and hostile ones.

import { deflateRawSync, gzipSync } from "node:zlib";
import type { DataEvent } from "../../../dino/data/dataset.ts";
import type { Decoder } from "../../../dino/data/decoder.ts";
import { openPixels } from "../../../dino/data/open.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { png, testPixels, withFiles } from "./make_images.ts";

type Files = [name: string, content: Uint8Array][];
const text = (string: string) => new TextEncoder().encode(string);

function join(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

function tarMember(name: string, content: Uint8Array, type = "0", declared = content.length): Uint8Array {
  const header = new Uint8Array(512);
  header.set(text(name).subarray(0, 100));
  header.set(
    text("0000644\0" + "0000000\0" + "0000000\0" + declared.toString(8).padStart(11, "0") + "\0" + "00000000000\0"),
    100,
  );
  header.set(text("        " + type), 148);
  header.set(text("ustar\x0000"), 257);
  const sum = header.reduce((a, b) => a + b, 0);
  header.set(text(sum.toString(8).padStart(6, "0") + "\0 "), 148);
  return join([header, content, new Uint8Array((512 - content.length % 512) % 512)]);
}

const tar = (files: Files) => join([...files.map(([name, content]) => tarMember(name, content)), new Uint8Array(1024)]);

function zip(files: Files, change: { flags?: number; method?: number; size?: number } = {}): Uint8Array {
  const parts: Uint8Array[] = [], directory: Uint8Array[] = [];
  let offset = 0;
  for (const [name, content] of files) {
    const packed = content.length > 100 && !name.includes("stored");
    const data: Uint8Array = packed ? deflateRawSync(content) : content;
    const fields = (header: DataView, at: number) => {
      header.setUint16(at, 20, true);
      header.setUint16(at + 2, change.flags ?? 0, true);
      header.setUint16(at + 4, change.method ?? (packed ? 8 : 0), true);
      header.setUint32(at + 14, data.length, true);
      header.setUint32(at + 18, change.size ?? content.length, true);
      header.setUint16(at + 22, text(name).length, true);
    };
    const local = new DataView(new ArrayBuffer(30)), central = new DataView(new ArrayBuffer(46));
    local.setUint32(0, 0x04034b50, true);
    fields(local, 4);
    local.setUint16(28, 5, true); // an extra field that only the local header has
    central.setUint32(0, 0x02014b50, true);
    fields(central, 6);
    central.setUint32(42, offset, true);
    parts.push(new Uint8Array(local.buffer), text(name), new Uint8Array(5), data);
    directory.push(new Uint8Array(central.buffer), text(name));
    offset += 35 + text(name).length + data.length;
  }
  const end = new DataView(new ArrayBuffer(22)), size = directory.reduce((sum, part) => sum + part.length, 0);
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, files.length, true);
  end.setUint16(10, files.length, true);
  end.setUint32(12, size, true);
  end.setUint32(16, offset, true);
  return join([...parts, ...directory, new Uint8Array(end.buffer)]);
}

const images = async (): Promise<Files> => [
  ["set/b/2.png", await png(9, 6, 2)],
  ["set/notes.txt", text("nothing")],
  ["set/a/1.png", await png(5, 4, 1)],
  ["__MACOSX/set/a/._1.png", text("junk")],
  ["set/b/stored.png", await png(3, 3, 3)],
];

Deno.test("tar, tar.gz and zip give the same images, in path order, with classes", async () => {
  const files = await images();
  await withFiles({ "x.tar": tar(files), "x.tar.gz": gzipSync(tar(files)), "x.zip": zip(files) }, async (folder) => {
    for (const name of ["x.tar", "x.tar.gz", "x.zip"]) {
      const source = await openPixels(`${folder}/${name}`, { cacheDirectory: `${folder}/cache` });
      assertEquals(Array.from({ length: 3 }, (_, i) => source.id(i)), [
        "set/a/1.png",
        "set/b/2.png",
        "set/b/stored.png",
      ], name);
      assertEquals([[...source.labels!], source.classNames], [[0, 1, 1], ["a", "b"]]);
      const { pixels } = await source.readBatch([1]);
      assertEquals(pixels.subarray(0, 162), testPixels(9, 6, 3, 2));
      source.close();
      const events: DataEvent[] = [];
      (await openPixels(`${folder}/${name}`, { cacheDirectory: `${folder}/cache`, onEvent: (e) => events.push(e) }))
        .close();
      assert(events.some((event) => event.type === "cache" && event.cached === 3), `${name}: all from the cache`);
    }
  });
});

Deno.test("tar names in pax and GNU headers are understood", async () => {
  const long = "folder/".repeat(20) + "image.png";
  const content = await png(2, 3);
  const record = (body: string) => {
    let length = body.length + 3;
    while (`${length} ${body}`.length !== length) length++;
    return `${length} ${body}`;
  };
  for (
    const prefix of [
      tarMember("PaxHeader", text(record(`path=${long}\n`) + record("mtime=1.5\n")), "x"),
      tarMember("././@LongLink", text(long + "\0"), "L"),
    ]
  ) {
    await withFiles(
      { "x.tar": join([prefix, tarMember("short.png", content), new Uint8Array(1024)]) },
      async (folder) => {
        assertEquals((await openPixels(`${folder}/x.tar`)).id(0), long);
      },
    );
  }
});

Deno.test("names that point outside an archive are only names", async () => {
  const files: Files = [["../../../evil.png", await png(2, 2, 1)], ["/abs.png", await png(2, 2, 2)]];
  await withFiles({ "in/x.tar": tar(files), "in/x.zip": zip(files) }, async (folder) => {
    for (const name of ["x.tar", "x.zip"]) assertEquals((await openPixels(`${folder}/in/${name}`)).length, 2);
    assertEquals(Array.from(Deno.readDirSync(folder), ({ name }) => name), ["in"]);
  });
});

Deno.test("a tar that is cut off gives what it has, and reports the rest", async () => {
  const whole = tar(await images());
  await withFiles(
    { "x.tar": whole.subarray(0, 2100), "y.tar.gz": gzipSync(whole).subarray(0, 500) },
    async (folder) => {
      const source = await openPixels(`${folder}/x.tar`);
      assertEquals([source.length, source.id(0)], [1, "set/b/2.png"]);
      assert(
        source.skipped.some(({ id, reason }) => id.endsWith("x.tar") && reason.includes("cut off")),
        JSON.stringify(source.skipped),
      );
      const packed = await openPixels(`${folder}/y.tar.gz`);
      assert(packed.skipped.some(({ id }) => id.endsWith("y.tar.gz")), JSON.stringify(packed.skipped));
    },
  );
});

Deno.test("archives that are none, empty, or hold no image are refused by name", async () => {
  const files = {
    "a.tar": text("not a tar archive".repeat(100)),
    "b.zip": text("not a zip archive"),
    "c.zip": zip([]),
    "d.tar": tar([["readme.md", text("x")]]),
    "e.tar": new Uint8Array(0),
    "f.tar.gz": text("not gzip"),
    "g.zip": zip(await images()).subarray(0, 400),
  };
  await withFiles(files, async (folder) => {
    const refused = (name: string, kind: typeof SyntaxError | typeof RangeError, message: string) =>
      assertRejects(() => openPixels(`${folder}/${name}`), kind, message);
    await refused("a.tar", SyntaxError, "a.tar: not a tar archive");
    await refused("b.zip", SyntaxError, "b.zip: not a zip archive");
    await refused("c.zip", RangeError, "none of its 0 files is an image");
    await refused("d.tar", RangeError, "none of its 1 files is an image");
    await refused("e.tar", SyntaxError, "e.tar: not a tar archive");
    await refused("f.tar.gz", SyntaxError, "f.tar.gz: not a tar archive");
    await refused("g.zip", SyntaxError, "g.zip: not a zip archive, or cut off");
  });
});

Deno.test("zip members that lie, are encrypted or packed in unknown ways cost themselves only", async () => {
  const bomb = new Uint8Array(50 << 20); // 50 MB of zeros in 50 KB, said to be 1000 bytes
  const good = await png(2, 2);
  const cases: [Uint8Array, string][] = [
    [zip([["bomb.png", bomb]], { size: 1000 }), "cannot be unpacked"],
    [zip([["bomb.png", bomb]], { size: 2 ** 31 }), "more than"],
    [zip([["secret.png", good]], { flags: 1 }), "encrypted"],
    [zip([["new.png", good]], { method: 93 }), "method 93"],
  ];
  for (const [archive, reason] of cases) {
    await withFiles({ "x.zip": archive }, async (folder) => {
      await assertRejects(() => openPixels(`${folder}/x.zip`), RangeError, reason);
    });
  }
});

Deno.test("tar headers that promise impossible sizes or endless names are stopped", async () => {
  const good = tarMember("a.png", await png(2, 2));
  for (
    const bad of [
      tarMember("b.png", new Uint8Array(0), "0", 8 ** 11 - 1),
      tarMember("././@LongLink", new Uint8Array(0), "L", 8 ** 9),
    ]
  ) {
    await withFiles({ "x.tar": join([good, bad]) }, async (folder) => {
      const source = await openPixels(`${folder}/x.tar`);
      assertEquals([source.length, source.skipped.length], [1, 1]);
    });
  }
});

Deno.test("archives and IDX files with any bytes changed give members or an error, never a crash", async () => {
  const files = await images();
  const kinds: [string, Uint8Array][] = [
    ["x.tar", tar(files)],
    ["x.zip", zip(files)],
    ["x-images-idx3-ubyte", join([Uint8Array.of(0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 3), new Uint8Array(18)])],
  ];
  let state = 1;
  const random = (below: number) => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) % below;
  // Nothing is decoded: what is tried here is finding and unpacking.
  const decoder: Decoder = {
    parallel: 1,
    decode: () => Promise.resolve({ pixels: new Uint8Array(3), height: 1, width: 1 }),
    measure: () => Promise.resolve({ height: 1, width: 1 }),
    close: () => {},
  };
  await withFiles({}, async (folder) => {
    for (let round = 0; round < 150; round++) {
      for (const [name, good] of kinds) {
        const bad = good.slice(0, random(4) === 0 ? random(good.length) : good.length);
        // Headers are where it matters: the beginning and the end are hit more often than the images between.
        for (let n = 0; n <= random(4) && bad.length > 0; n++) {
          const at = [
            random(bad.length),
            random(Math.min(600, bad.length)),
            bad.length - 1 - random(Math.min(400, bad.length)),
          ];
          bad[at[random(3)]] = [0, 255, random(256)][random(3)];
        }
        await Deno.writeFile(`${folder}/${name}`, bad);
        try {
          const source = await openPixels(`${folder}/${name}`, { decoder });
          await source.readBatch([0]);
        } catch (error) {
          if (error instanceof SyntaxError || error instanceof RangeError) continue;
          throw new Error(`round ${round} of ${name}`, { cause: error });
        }
      }
    }
  });
});
