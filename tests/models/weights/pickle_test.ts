// The restricted unpickler: Python's own pickles of every protocol, hostile ones, and ones that would grow without end.

import { PickleTruncated, PickleTuple, unpickle } from "../../../models/weights/pickle.ts";
import { plainGlobals } from "../../../models/weights/plain_globals.ts";
import { openPytorch } from "../../../models/weights/pytorch.ts";
import { bytesSource } from "../../../models/weights/safetensors.ts";
import { toFloat64 } from "../../../models/weights/tensor_file.ts";
import { assert, assertEquals, assertRejects, assertThrows } from "../../assert.ts";

const world = () => ({ globals: new Map(plainGlobals().map((global) => [global.name, global])) });

/** Opcodes as text, each character a byte. */
const raw = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0));

// pickle.dumps by Python 3.11 of one dict, at protocols 0 to 5: lists, tuples, sets, bytes, huge and negative integers,
// characters beyond the first plane, an OrderedDict, and a list that is there twice.
const PROTOCOLS = [
  "KGRwMApWYQpwMQoobHAyCkkxCmFGMi41CmFOYUkwMQphSTAwCmFzVnQKcDMKKEkxCkkyCnRwNApzVnQ0CnA1CihJMQpJMgpJMwpJNAp0cDYKc1ZzCnA3CmNfX2J1aWx0aW5fXwpzZXQKcDgKKChscDkKSTcKYXRwMTAKUnAxMQpzVmIKcDEyCmNfY29kZWNzCmVuY29kZQpwMTMKKFZ4/wpwMTQKVmxhdGluMQpwMTUKdHAxNgpScDE3CnNWYmlnCnAxOApMMTE4MDU5MTYyMDcxNzQxMTMwMzQyNEwKc1ZuZWcKcDE5CkktMzAwCnNWbmVnNjQKcDIwCkwtMTA5OTUxMTYyNzc3NkwKc1Z1CnAyMQpW/G7vXHUyNzEzIFxVMDAwMWY2MDAKcDIyCnNWbwpwMjMKY2NvbGxlY3Rpb25zCk9yZGVyZWREaWN0CnAyNAoodFJwMjUKVmsKcDI2CkkxCnNzVmUKcDI3Cih0c1ZmCnAyOApjX19idWlsdGluX18KZnJvemVuc2V0CnAyOQooKGxwMzAKSTMKYXRwMzEKUnAzMgpzVmFnYWluCnAzMwpnMgpzLg==",
  "fXEAKFgBAAAAYXEBXXECKEsBR0AEAAAAAAAATkkwMQpJMDAKZVgBAAAAdHEDKEsBSwJ0cQRYAgAAAHQ0cQUoSwFLAksDSwR0cQZYAQAAAHNxB2NfX2J1aWx0aW5fXwpzZXQKcQgoXXEJSwdhdHEKUnELWAEAAABicQxjX2NvZGVjcwplbmNvZGUKcQ0oWAMAAAB4w79xDlgGAAAAbGF0aW4xcQ90cRBScRFYAwAAAGJpZ3ESTDExODA1OTE2MjA3MTc0MTEzMDM0MjRMClgDAAAAbmVncRNK1P7//1gFAAAAbmVnNjRxFEwtMTA5OTUxMTYyNzc3NkwKWAEAAAB1cRVYDQAAAMO8bsOv4pyTIPCfmIBxFlgBAAAAb3EXY2NvbGxlY3Rpb25zCk9yZGVyZWREaWN0CnEYKVJxGVgBAAAAa3EaSwFzWAEAAABlcRspWAEAAABmcRxjX19idWlsdGluX18KZnJvemVuc2V0CnEdKF1xHksDYXRxH1JxIFgFAAAAYWdhaW5xIWgCdS4=",
  "gAJ9cQAoWAEAAABhcQFdcQIoSwFHQAQAAAAAAABOiIllWAEAAAB0cQNLAUsChnEEWAIAAAB0NHEFKEsBSwJLA0sEdHEGWAEAAABzcQdjX19idWlsdGluX18Kc2V0CnEIXXEJSwdhhXEKUnELWAEAAABicQxjX2NvZGVjcwplbmNvZGUKcQ1YAwAAAHjDv3EOWAYAAABsYXRpbjFxD4ZxEFJxEVgDAAAAYmlncRKKCQAAAAAAAAAAQFgDAAAAbmVncRNK1P7//1gFAAAAbmVnNjRxFIoGAAAAAAD/WAEAAAB1cRVYDQAAAMO8bsOv4pyTIPCfmIBxFlgBAAAAb3EXY2NvbGxlY3Rpb25zCk9yZGVyZWREaWN0CnEYKVJxGVgBAAAAa3EaSwFzWAEAAABlcRspWAEAAABmcRxjX19idWlsdGluX18KZnJvemVuc2V0CnEdXXEeSwNhhXEfUnEgWAUAAABhZ2FpbnEhaAJ1Lg==",
  "gAN9cQAoWAEAAABhcQFdcQIoSwFHQAQAAAAAAABOiIllWAEAAAB0cQNLAUsChnEEWAIAAAB0NHEFKEsBSwJLA0sEdHEGWAEAAABzcQdjYnVpbHRpbnMKc2V0CnEIXXEJSwdhhXEKUnELWAEAAABicQxDAnj/cQ1YAwAAAGJpZ3EOigkAAAAAAAAAAEBYAwAAAG5lZ3EPStT+//9YBQAAAG5lZzY0cRCKBgAAAAAA/1gBAAAAdXERWA0AAADDvG7Dr+KckyDwn5iAcRJYAQAAAG9xE2Njb2xsZWN0aW9ucwpPcmRlcmVkRGljdApxFClScRVYAQAAAGtxFksBc1gBAAAAZXEXKVgBAAAAZnEYY2J1aWx0aW5zCmZyb3plbnNldApxGV1xGksDYYVxG1JxHFgFAAAAYWdhaW5xHWgCdS4=",
  "gASVzAAAAAAAAAB9lCiMAWGUXZQoSwFHQAQAAAAAAABOiIlljAF0lEsBSwKGlIwCdDSUKEsBSwJLA0sEdJSMAXOUj5QoSweQjAFilEMCeP+UjANiaWeUigkAAAAAAAAAAECMA25lZ5RK1P7//4wFbmVnNjSUigYAAAAAAP+MAXWUjA3DvG7Dr+KckyDwn5iAlIwBb5SMC2NvbGxlY3Rpb25zlIwLT3JkZXJlZERpY3SUk5QpUpSMAWuUSwFzjAFllCmMAWaUKEsDkZSMBWFnYWlulGgCdS4=",
  "gAWVzAAAAAAAAAB9lCiMAWGUXZQoSwFHQAQAAAAAAABOiIlljAF0lEsBSwKGlIwCdDSUKEsBSwJLA0sEdJSMAXOUj5QoSweQjAFilEMCeP+UjANiaWeUigkAAAAAAAAAAECMA25lZ5RK1P7//4wFbmVnNjSUigYAAAAAAP+MAXWUjA3DvG7Dr+KckyDwn5iAlIwBb5SMC2NvbGxlY3Rpb25zlIwLT3JkZXJlZERpY3SUk5QpUpSMAWuUSwFzjAFllCmMAWaUKEsDkZSMBWFnYWlulGgCdS4=",
];

Deno.test("pickle: what Python writes at protocols 0 to 5 reads as the same data", () => {
  for (const [protocol, text] of PROTOCOLS.entries()) {
    const bytes = Uint8Array.fromBase64(text);
    const { value, end } = unpickle(bytes, world());
    const map = value as Map<string, unknown>;
    assertEquals(end, bytes.length);
    assertEquals(map.get("a"), [1, 2.5, null, true, false]);
    assert(map.get("again") === map.get("a"), `protocol ${protocol}: the shared list became two`);
    assertEquals((map.get("t") as PickleTuple).items, [1, 2]);
    assertEquals((map.get("t4") as PickleTuple).items, [1, 2, 3, 4]);
    assertEquals((map.get("e") as PickleTuple).items, []);
    assertEquals([...map.get("s") as Set<number>], [7]);
    assertEquals([...map.get("f") as Set<number>], [3]);
    assertEquals([...map.get("b") as Uint8Array], [0x78, 0xff]);
    assertEquals(map.get("big"), 2n ** 70n);
    assertEquals([map.get("neg"), map.get("neg64")], [-300, -(2 ** 40)]);
    assertEquals(map.get("u"), "ünï✓ 😀");
    assertEquals([...map.get("o") as Map<string, number>], [["k", 1]]);
    for (let cut = 0; cut < bytes.length; cut++) {
      assertThrows(() => unpickle(bytes.subarray(0, cut), world()), PickleTruncated);
    }
  }
});

// torch.save by PyTorch 2.13, legacy layout: {"a": uint16 [1, 65535], "d": every second of uint16 [5, 6, 7, 8] from the second on}.
const UINT16 =
  "gAKKCmz8nEb5IGqoUBkugAJN6QMugAJ9cQAoWBAAAABwcm90b2NvbF92ZXJzaW9ucQFN6QNYDQAAAGxpdHRsZV9lbmRpYW5xAohYCgAAAHR5cGVfc2l6ZXNxA31xBChYBQAAAHNob3J0cQVLAlgDAAAAaW50cQZLBFgEAAAAbG9uZ3EHSwR1dS6AAn1xAChYAQAAAGFxAWN0b3JjaC5fdXRpbHMKX3JlYnVpbGRfdGVuc29yX3YzCnECKChYBwAAAHN0b3JhZ2VxA2N0b3JjaC5zdG9yYWdlClVudHlwZWRTdG9yYWdlCnEEWA4AAAA5Mzk0MjgwMzA2MDQxNnEFWAMAAABjcHVxBksETnRxB1FLAEsChXEISwGFcQmJY2NvbGxlY3Rpb25zCk9yZGVyZWREaWN0CnEKKVJxC2N0b3JjaAp1aW50MTYKcQx0cQ1ScQ5YAQAAAGRxD2gCKChoA2gEWA4AAAA5Mzk0MjgwMzA2MjE3NnEQaAZLCE50cRFRSwFLAoVxEksChXETiWgKKVJxFGgMdHEVUnEWdS6AAl1xAChYDgAAADkzOTQyODAzMDYwNDE2cQFYDgAAADkzOTQyODAzMDYyMTc2cQJlLgQAAAAAAAAAAQD//wgAAAAAAAAABQAGAAcACAA=";

Deno.test("PyTorch: element types without a storage of their own, rebuilt from raw bytes", async () => {
  const file = await openPytorch(bytesSource(Uint8Array.from(atob(UINT16), (c) => c.charCodeAt(0))));
  const read = async (name: string) => {
    const info = file.tensors.get(name)!;
    return [info.dtype, ...toFloat64(info.dtype, await file.read(info))];
  };
  assertEquals([await read("a"), await read("d")], [["U16", 1, 65535], ["U16", 6, 8]]);
});

Deno.test("pickle: names that are not listed are refused by name, whatever opcode asks", () => {
  const asks: [string, string][] = [
    ["cos\nsystem\n(S'true'\ntR.", "os.system"],
    ["(ios\nsystem\n.", "os.system"],
    ["(cos\nsystem\nS'true'\no.", "os.system"],
    ["\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"],
    ["cbuiltins\neval\n.", "builtins.eval"],
    ["ccollections\nOrderedDict.__init__\n.", "collections.OrderedDict.__init__"],
    ["c__proto__\nconstructor\n.", "__proto__.constructor"],
  ];
  for (const [text, name] of asks) assertThrows(() => unpickle(raw(text), world()), TypeError, `asks for ${name}`);
});

Deno.test("pickle: malformed ones say where and why", () => {
  const cases: [string, string][] = [
    ["R.", "the stack is empty"],
    ["N.", ""],
    ["NN.", "left over"],
    ["(.", "the stack is empty"],
    ["t.", "no mark"],
    ["K\x01K\x02a.", "no list"],
    ["NNNs.", "no dict"],
    ["}(NNNu.", "no value"],
    ["h\x05.", "never put"],
    ["NN\x86)R.", "no function"],
    ["S'collections.OrderedDict'\n)R.", "no function"],
    ["ccollections\nOrderedDict\nNR.", "no tuple"],
    ["N}b.", "no state"],
    ["NQ.", "persistent id"],
    ["\x80\x09N.", "protocol 9"],
    ["I12x\n.", "not an integer"],
    [`I${"9".repeat(5000)}\n.`, "not an integer"],
    ["\x8b\xff\xff\xff\x7f.", "an integer of"],
    ["Fabc\n.", "not a number"],
    ["\xff.", "0xff is not known"],
    ["c_codecs\nencode\n(V\\u2713\nVlatin1\ntR.", "Latin-1"],
    ["cnumpy\ndtype\n(VO8\ntR.", "is no number"],
  ];
  for (const [text, message] of cases) {
    if (message === "") assertEquals(unpickle(raw(text), world()).value, null);
    else assertThrows(() => unpickle(raw(text), world()), SyntaxError, message);
  }
});

Deno.test("pickle: a few bytes that stand for something endless are refused, not walked", async () => {
  // Sixty lists, each holding the one before twice: 2^60 values to who walks them.
  let bomb = "]q\x00";
  for (let i = 0; i < 60; i++) {
    bomb += `](h${String.fromCharCode(i)}h${String.fromCharCode(i)}eq${String.fromCharCode(i + 1)}`;
  }
  const stream = (object: string) =>
    raw(
      "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + "\x80\x02M\xe9\x03." +
        "\x80\x02}X\x0d\x00\x00\x00little_endian\x88s." + `\x80\x02${object}.` + "\x80\x02].",
    );
  assertEquals((await openPytorch(bytesSource(stream("]")))).tensors.size, 0);
  // What is left below on the stack has to go before STOP.
  const flat = `(${bomb}t`;
  await assertRejects(
    () => openPytorch(bytesSource(stream(flat), "bomb.pth")),
    SyntaxError,
    "bomb.pth: its object is nested",
  );
  await assertRejects(() => openPytorch(bytesSource(stream("]q\x00h\x00a"))), SyntaxError, "holds itself");
  // A megabyte of text turned into bytes a hundred thousand times is turned once.
  const text = "x".repeat(2 ** 20);
  const call = "h\x01h\x02R0".repeat(100_000);
  const copies = raw(`c_codecs\nencode\nq\x01(V${text}\nVlatin1\ntq\x02${call}0.`);
  assertEquals(typeof (unpickle(copies, world()).value as { name: string }).name, "string");
});
