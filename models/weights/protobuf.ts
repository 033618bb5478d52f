// The wire format of protocol buffers: just enough to write a message, and to walk one in a file by ranges.

import type { ByteSource } from "./safetensors.ts";

/** Bytes of a message; fields in the order they are added. */
export class ProtoWriter {
  #parts: Uint8Array[] = [];
  length = 0;

  /** An integer field; negative ones take ten bytes, as the format wants. */
  varint(field: number, value: number | bigint): this {
    return this.#put(varint(BigInt(field << 3))).#put(varint(BigInt.asUintN(64, BigInt(value))));
  }

  /** A 32-bit floating-point field. */
  float(field: number, value: number): this {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    return this.#put(varint(BigInt(field << 3 | 5))).#put(bytes);
  }

  bytes(field: number, value: Uint8Array): this {
    return this.header(field, value.length).#put(value);
  }

  text(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  message(field: number, value: ProtoWriter): this {
    this.header(field, value.length);
    for (const part of value.#parts) this.#put(part);
    return this;
  }

  /** Only the tag and length of a field, whose `length` bytes follow. */
  header(field: number, length: number): this {
    return this.#put(varint(BigInt(field << 3 | 2))).#put(varint(BigInt(length)));
  }

  finish(): Uint8Array<ArrayBuffer> {
    const whole = new Uint8Array(this.length);
    let at = 0;
    for (const part of this.#parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  }

  #put(bytes: Uint8Array): this {
    this.#parts.push(bytes);
    this.length += bytes.length;
    return this;
  }
}

function varint(value: bigint): Uint8Array {
  const bytes: number[] = [];
  for (; value > 127n; value >>= 7n) bytes.push(Number(value & 127n) | 128);
  bytes.push(Number(value));
  return Uint8Array.from(bytes);
}

/** A field of a message: an integer (or the bits of a fixed one), or where its bytes lie. */
export interface ProtoField {
  readonly field: number;
  readonly value?: bigint;
  readonly start: number;
  readonly end: number;
}

/** Bytes read ahead; large fields are jumped over, not read. */
const WINDOW = 1 << 16;

/** Walks the fields of messages in a source. */
export class ProtoReader {
  #window: Uint8Array = new Uint8Array(0);
  #from = 0;
  constructor(readonly source: ByteSource) {}

  /** Fields of the message at `start … end`. Throws {SyntaxError} where it is malformed. */
  async *fields(start: number, end: number): AsyncGenerator<ProtoField> {
    for (let at = start; at < end;) {
      const tag = await this.#varint(at, end);
      const field = Number(tag.value >> 3n), type = Number(tag.value & 7n);
      at = tag.next;
      if (field === 0 || field > 0x1fffffff) throw this.#error(at, `field number ${field}`);
      if (type === 0) {
        const { value, next } = await this.#varint(at, end);
        yield { field, value, start: at, end: next };
        at = next;
      } else if (type === 2) {
        const { value, next } = await this.#varint(at, end);
        if (value > BigInt(end - next)) throw this.#error(at, `a field of ${value} bytes, ${end - next} are left`);
        const stop = next + Number(value);
        yield { field, start: next, end: stop };
        at = stop;
      } else if (type === 1 || type === 5) {
        const size = type === 1 ? 8 : 4;
        if (at + size > end) throw this.#error(at, "a field that breaks off");
        yield { field, start: at, end: at + size };
        at += size;
      } else throw this.#error(at, `wire type ${type}`);
    }
  }

  /** Integers packed into one field. */
  async packed(start: number, end: number, most: number): Promise<bigint[]> {
    const values: bigint[] = [];
    for (let at = start; at < end;) {
      if (values.length === most) throw this.#error(at, `more than ${most} numbers`);
      const { value, next } = await this.#varint(at, end);
      values.push(value);
      at = next;
    }
    return values;
  }

  /** A string field. */
  async text(start: number, end: number, most: number): Promise<string> {
    if (end - start > most) throw this.#error(start, `a name of ${end - start} bytes`);
    return new TextDecoder().decode(await this.source.read(start, end));
  }

  async #varint(at: number, end: number): Promise<{ value: bigint; next: number }> {
    let value = 0n;
    for (let i = 0; i < 10; i++) {
      if (at + i >= end) throw this.#error(at, "a number that breaks off");
      const byte = await this.#byte(at + i);
      value |= BigInt(byte & 127) << BigInt(7 * i);
      if (byte < 128) return { value: BigInt.asUintN(64, value), next: at + i + 1 };
    }
    throw this.#error(at, "a number of more than ten bytes");
  }

  async #byte(at: number): Promise<number> {
    if (at < this.#from || at >= this.#from + this.#window.length) {
      this.#window = await this.source.read(at, Math.min(at + WINDOW, this.source.size));
      this.#from = at;
    }
    return this.#window[at - this.#from];
  }

  #error(at: number, message: string): SyntaxError {
    return new SyntaxError(`${this.source.name}: malformed at byte ${at}: ${message}`);
  }
}
