// A restricted unpickler: plain data, and the few constructors a caller lists by their exact names; everything else is refused.

import { latin1, narrow, unescapeUnicode } from "./pickle_text.ts";

/** A Python tuple; lists are arrays. */
export class PickleTuple {
  constructor(readonly items: readonly unknown[]) {}
}

/** An instance of a listed class that holds nothing but attributes, such as argparse's Namespace. */
export class PickleObject {
  readonly fields: Map<unknown, unknown> = new Map();
  constructor(readonly type: string) {}
}

/** A value whose state arrives later, by the BUILD opcode. */
export interface Buildable {
  buildFromPickle(state: unknown): void;
}

/** What a listed name may do. Without `call` it is only a value, to be passed to others. */
export interface PickleGlobal {
  /** `module.name`, for messages. */
  readonly name: string;
  /** REDUCE and NEWOBJ come here; must build plain data and throw {SyntaxError} on arguments it does not expect. */
  readonly call?: (args: readonly unknown[]) => unknown;
  /** What the name stands for, where a listed function receives it as an argument. */
  readonly value?: unknown;
}

/** What a pickle may refer to. */
export interface PickleWorld {
  /** By `module.name`. Names that are not here are refused. */
  readonly globals: ReadonlyMap<string, PickleGlobal>;
  /** Resolves persistent ids; without it they are refused. */
  readonly persistent?: (id: unknown) => unknown;
}

/** The bytes at hand end before the pickle does: more may follow where they came from. */
export class PickleTruncated extends SyntaxError {}

/** Opcodes of one pickle; checkpoints of a thousand tensors need some 50 000. */
const MAX_OPCODES = 20_000_000;
/** Digits and bytes of an integer: conversion is quadratic, and nothing a checkpoint counts is longer. */
const MAX_INTEGER_BYTES = 1024;

/**
 * Reads one pickle (protocols 0 to 5). None becomes null, int a number (a bigint beyond 2^53), dict a Map, bytes a
 * Uint8Array, set a Set. No code of the file's choosing runs.
 *
 * @param start first byte of the pickle in `bytes`
 * @returns the value, and the offset behind its STOP
 * @throws {SyntaxError} if it is malformed, {@linkcode PickleTruncated} if it goes on behind `bytes`
 * @throws {TypeError} if it asks for a class or function that is not listed, naming it
 */
export function unpickle(bytes: Uint8Array, world: PickleWorld, start = 0): { value: unknown; end: number } {
  const reader = new Unpickler(bytes, world, start);
  return { value: reader.run(), end: reader.at };
}

const MARK = Symbol("mark");

class Unpickler {
  at: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #world: PickleWorld;
  readonly #stack: unknown[] = [];
  readonly #memo: Map<number, unknown> = new Map();

  constructor(bytes: Uint8Array, world: PickleWorld, start: number) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#world = world;
    this.at = start;
  }

  run(): unknown {
    for (let count = 0; count < MAX_OPCODES; count++) {
      const opcode = this.#u8();
      if (opcode === STOP) {
        const value = this.#pop();
        if (this.#stack.length > 0) throw this.#error(`${this.#stack.length} values are left over at STOP`);
        return value;
      }
      this.#execute(opcode);
    }
    throw this.#error(`more than ${MAX_OPCODES} opcodes`);
  }

  #execute(opcode: number): void {
    const stack = this.#stack;
    switch (String.fromCharCode(opcode)) {
      case "\x80": { // PROTO
        const protocol = this.#u8();
        if (protocol > 5) throw this.#error(`protocol ${protocol} is not known: 0 to 5 are`);
        return;
      }
      case "\x95": // FRAME
        this.#u64();
        return;
      case "(":
        return void stack.push(MARK);
      case "0":
        return void this.#pop();
      case "1":
        return void this.#popMark();
      case "2":
        return void stack.push(this.#top());

      case "N":
        return void stack.push(null);
      case "\x88":
        return void stack.push(true);
      case "\x89":
        return void stack.push(false);
      case "K":
        return void stack.push(this.#u8());
      case "M":
        return void stack.push(this.#view.getUint16(this.#take(2), true));
      case "J":
        return void stack.push(this.#view.getInt32(this.#take(4), true));
      case "\x8a":
        return void stack.push(this.#longBytes(this.#u8()));
      case "\x8b":
        return void stack.push(this.#longBytes(this.#u32()));
      case "G":
        return void stack.push(this.#view.getFloat64(this.#take(8), false));
      case "I": { // decimal; 00 and 01 are booleans
        const text = this.#line();
        return void stack.push(text === "00" ? false : text === "01" ? true : this.#decimal(text));
      }
      case "L":
        return void stack.push(this.#decimal(this.#line().replace(/L$/, "")));
      case "F": {
        const text = this.#line();
        const value = { inf: Infinity, "-inf": -Infinity, nan: NaN }[text] ?? (text.trim() === "" ? NaN : Number(text));
        if (Number.isNaN(value) && text !== "nan") throw this.#error(`"${text.slice(0, 40)}" is not a number`);
        return void stack.push(value);
      }

      case "X":
        return void stack.push(this.#text(this.#u32()));
      case "\x8c":
        return void stack.push(this.#text(this.#u8()));
      case "\x8d":
        return void stack.push(this.#text(this.#u64()));
      case "V": // raw-unicode-escape
        return void stack.push(unescapeUnicode(this.#line()));
      case "U": // Python 2's str: Latin-1, as PyTorch reads it
        return void stack.push(latin1(this.#chunk(this.#u8())));
      case "T":
        return void stack.push(latin1(this.#chunk(this.#u32())));
      case "S":
        return void stack.push(this.#quoted());
      case "B":
        return void stack.push(this.#chunk(this.#u32()).slice());
      case "C":
        return void stack.push(this.#chunk(this.#u8()).slice());
      case "\x8e":
      case "\x96":
        return void stack.push(this.#chunk(this.#u64()).slice());

      case "]":
        return void stack.push([]);
      case "l":
        return void stack.push(this.#popMark());
      case "a": {
        const value = this.#pop();
        return void this.#list().push(value);
      }
      case "e": {
        const items = this.#popMark();
        const list = this.#list();
        for (const item of items) list.push(item); // not by spread: it would overflow the call stack
        return;
      }
      case ")":
        return void stack.push(new PickleTuple([]));
      case "t":
        return void stack.push(new PickleTuple(this.#popMark()));
      case "\x85":
        return void stack.push(new PickleTuple(this.#popSome(1)));
      case "\x86":
        return void stack.push(new PickleTuple(this.#popSome(2)));
      case "\x87":
        return void stack.push(new PickleTuple(this.#popSome(3)));
      case "}":
        return void stack.push(new Map());
      case "d": {
        const map = new Map();
        this.#setItems(map, this.#popMark());
        return void stack.push(map);
      }
      case "s": {
        const pair = this.#popSome(2);
        return this.#setItems(this.#top(), pair);
      }
      case "u": {
        const pairs = this.#popMark();
        return this.#setItems(this.#top(), pairs);
      }
      case "\x8f":
        return void stack.push(new Set());
      case "\x90": {
        const items = this.#popMark();
        const set = this.#top();
        if (!(set instanceof Set)) throw this.#error("ADDITEMS to what is no set");
        for (const item of items) set.add(item);
        return;
      }
      case "\x91":
        return void stack.push(new Set(this.#popMark()));

      case "p":
        return void this.#memo.set(this.#memoIndex(this.#line()), this.#top());
      case "q":
        return void this.#memo.set(this.#u8(), this.#top());
      case "r":
        return void this.#memo.set(this.#u32(), this.#top());
      case "\x94":
        return void this.#memo.set(this.#memo.size, this.#top());
      case "g":
        return void stack.push(this.#recall(this.#memoIndex(this.#line())));
      case "h":
        return void stack.push(this.#recall(this.#u8()));
      case "j":
        return void stack.push(this.#recall(this.#u32()));

      case "c":
        return void stack.push(this.#global(this.#line(), this.#line()));
      case "\x93": {
        const [module, name] = this.#popSome(2);
        if (typeof module !== "string" || typeof name !== "string") throw this.#error("STACK_GLOBAL without names");
        return void stack.push(this.#global(module, name));
      }
      case "i": { // INST: class by name, arguments since the mark
        const global = this.#global(this.#line(), this.#line());
        return void stack.push(this.#call(global, this.#popMark()));
      }
      case "o": { // OBJ: mark, class, arguments
        const [global, ...args] = this.#popMark();
        return void stack.push(this.#call(global, args));
      }
      case "R":
      case "\x81": {
        const [callee, args] = this.#popSome(2);
        if (!(args instanceof PickleTuple)) throw this.#error("a call whose arguments are no tuple");
        return void stack.push(this.#call(callee, args.items));
      }
      case "\x92": {
        const [callee, args, named] = this.#popSome(3);
        if (!(args instanceof PickleTuple) || !(named instanceof Map) || named.size > 0) {
          throw this.#error("a call with named arguments");
        }
        return void stack.push(this.#call(callee, args.items));
      }
      case "b": {
        const state = this.#pop();
        return this.#build(this.#top(), state);
      }
      case "Q":
        return void stack.push(this.#persistent(this.#pop()));
      case "P":
        return void stack.push(this.#persistent(this.#line()));
      default:
        throw this.#error(`opcode 0x${opcode.toString(16).padStart(2, "0")} is not known`, 1);
    }
  }

  #global(module: string, name: string): PickleGlobal {
    const full = `${module}.${name}`;
    const found = this.#world.globals.get(full);
    if (!found) {
      throw new TypeError(
        `asks for ${full.slice(0, 120)}, which is neither a tensor nor plain data: refused, nothing of it was run`,
      );
    }
    return found;
  }

  /** A callee is trusted only if it is the very object of the list, never something a file built. */
  #call(callee: unknown, args: readonly unknown[]): unknown {
    const global = callee as PickleGlobal | null;
    if (typeof global?.name !== "string" || this.#world.globals.get(global.name) !== global) {
      throw this.#error("a call of what is no function");
    }
    if (!global.call) throw new TypeError(`calls ${global.name}, which may only be named: refused, nothing was run`);
    return global.call(args);
  }

  #build(target: unknown, state: unknown): void {
    if (target instanceof PickleObject) {
      // (state, slots) is how a class with slots says it; only attributes are known here.
      if (!(state instanceof Map)) throw this.#error(`the state of ${target.type} is no dict`);
      for (const [key, value] of state) target.fields.set(key, value);
    } else if (target instanceof Map || target instanceof Set) {
      // Attributes of a dict, such as the _metadata of a state_dict, are of no use here.
      if (!(state instanceof Map)) throw this.#error("the attributes of a dict are no dict");
    } else if (target !== null && typeof target === "object" && "buildFromPickle" in target) {
      (target as Buildable).buildFromPickle(state);
    } else throw this.#error("BUILD of what has no state");
  }

  #persistent(id: unknown): unknown {
    if (!this.#world.persistent) throw this.#error("a persistent id, which only PyTorch's own files have");
    return this.#world.persistent(id);
  }

  #setItems(target: unknown, items: readonly unknown[]): void {
    if (!(target instanceof Map)) throw this.#error("SETITEMS of what is no dict");
    if (items.length % 2 !== 0) throw this.#error("SETITEMS with a key that has no value");
    for (let i = 0; i < items.length; i += 2) target.set(items[i], items[i + 1]);
  }

  #list(): unknown[] {
    const list = this.#top();
    if (!Array.isArray(list)) throw this.#error("APPENDS to what is no list");
    return list;
  }

  #recall(index: number): unknown {
    if (!this.#memo.has(index)) throw this.#error(`memo ${index} was never put`);
    return this.#memo.get(index);
  }

  #memoIndex(text: string): number {
    const index = Number(text);
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(index)) throw this.#error("a memo index that is no number");
    return index;
  }

  #top(): unknown {
    const { length } = this.#stack;
    if (length === 0 || this.#stack[length - 1] === MARK) throw this.#error("the stack is empty");
    return this.#stack[length - 1];
  }

  #pop(): unknown {
    const value = this.#top();
    this.#stack.pop();
    return value;
  }

  #popSome(count: number): unknown[] {
    const values = new Array<unknown>(count);
    for (let i = count - 1; i >= 0; i--) values[i] = this.#pop();
    return values;
  }

  #popMark(): unknown[] {
    const from = this.#stack.lastIndexOf(MARK);
    if (from < 0) throw this.#error("there is no mark on the stack");
    const values = this.#stack.splice(from);
    values.shift();
    return values;
  }

  #take(count: number): number {
    const from = this.at;
    if (count > this.#bytes.length - from) {
      throw new PickleTruncated(`the pickle breaks off: ${count} bytes are wanted at ${from} of ${this.#bytes.length}`);
    }
    this.at += count;
    return from;
  }

  #u8(): number {
    return this.#bytes[this.#take(1)];
  }

  #u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  #u64(): number {
    return Number(this.#view.getBigUint64(this.#take(8), true));
  }

  #chunk(count: number): Uint8Array {
    const from = this.#take(count);
    return this.#bytes.subarray(from, from + count);
  }

  #text(count: number): string {
    return UTF8.decode(this.#chunk(count));
  }

  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.at);
    if (end < 0) throw new PickleTruncated(`the pickle breaks off: a line at ${this.at} has no end`);
    const from = this.#take(end - this.at + 1);
    const line = this.#bytes.subarray(from, end);
    return latin1(line.at(-1) === 0x0d ? line.subarray(0, -1) : line);
  }

  /** Protocol 0's str: a Python literal in quotes. */
  #quoted(): string {
    const text = this.#line();
    const quote = text[0];
    if (text.length < 2 || (quote !== "'" && quote !== '"') || text.at(-1) !== quote) {
      throw this.#error("a string without quotes");
    }
    return unescapeUnicode(text.slice(1, -1).replace(/\\(['"\\])/g, "$1"));
  }

  #decimal(text: string): number | bigint {
    if (!/^[+-]?\d+$/.test(text) || text.length > MAX_INTEGER_BYTES) {
      throw this.#error(`"${text.slice(0, 40)}" is not an integer`);
    }
    return narrow(BigInt(text));
  }

  #longBytes(count: number): number | bigint {
    if (count > MAX_INTEGER_BYTES) throw this.#error(`an integer of ${count} bytes`);
    const bytes = this.#chunk(count);
    let value = 0n;
    for (let i = count - 1; i >= 0; i--) value = value << 8n | BigInt(bytes[i]);
    return narrow(BigInt.asIntN(8 * count, value));
  }

  #error(message: string, back = 0): SyntaxError {
    return new SyntaxError(`malformed pickle at byte ${this.at - back}: ${message}`);
  }
}

const STOP = 0x2e;
// ignoreBOM: a byte-order mark is a character like any other. Surrogates that Python lets pass become U+FFFD.
const UTF8 = new TextDecoder("utf-8", { ignoreBOM: true });
