// Text and numbers as pickles write them, and values as messages may show them.

/** A value in a message: never walked into, for a file may have made it endless. */
export function describeValue(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 40));
  if (typeof value === "bigint") return "a huge integer";
  return value === null || typeof value !== "object" ? String(value) : `a ${value.constructor?.name ?? "object"}`;
}

/** A number where it is exact, else the bigint. */
export function narrow(value: bigint): number | bigint {
  return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
}

/** Bytes as characters of the same numbers; TextDecoder's "latin1" is windows-1252, which differs in 0x80–0x9f. */
export function latin1(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return text;
}

/** Python's raw-unicode-escape. */
export function unescapeUnicode(text: string): string {
  return text.replace(/\\u([0-9a-fA-F]{4})|\\U(0[0-9a-fA-F]{7})/g, (all, short, long) => {
    const code = parseInt(short ?? long, 16);
    return code <= 0x10ffff ? String.fromCodePoint(code) : all;
  });
}
