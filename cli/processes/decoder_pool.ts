// A pool of decoder processes: an image that crashes, hangs or bloats one costs that image, and never the run.

import { DecodeError } from "../../dino/data/decode.ts";
import { type DecodedImage, type DecodeOptions, type Decoder, DecoderFailure } from "../../dino/data/decoder.ts";
import { type DecodeReply, type DecodeRequest, EXIT_BLOATED, readFrame, writeFrame } from "./decoder_protocol.ts";

/** The hidden command by which a compiled binary starts itself as a decoder. */
export const DECODER_COMMAND = "__decoder";

/** Loading sharp takes a fraction of a second; a machine that is very busy, more. */
const START_SECONDS = 120;

/** How the pool is run. */
export interface DecoderPoolOptions {
  /** Default: one for each core, at most 8. */
  processes?: number;
  /** Seconds that one image may take. Default 60. */
  timeout?: number;
  /** Bytes of resident memory that a decoder may take. Default 3e9. */
  memoryLimit?: number;
  /** A binary of this program to decode with, instead of the one that runs. */
  executable?: string;
}

/**
 * Decodes in other processes, that may read files and do nothing else. They are started when first needed and end with
 * this process.
 */
export class DecoderPool implements Decoder {
  readonly parallel: number;
  readonly #options: Required<Omit<DecoderPoolOptions, "executable">> & { executable?: string };
  readonly #idle: DecoderProcess[] = [];
  readonly #all = new Set<DecoderProcess>();
  readonly #waiting: ((process: DecoderProcess) => void)[] = [];
  #closed = false;

  /**
   * A pool whose processes start with the first image.
   *
   * @throws {RangeError} if `processes` is no whole number above 0
   */
  constructor(options: DecoderPoolOptions = {}) {
    const { processes = Math.min(8, navigator.hardwareConcurrency), timeout = 60, memoryLimit = 3e9, executable } =
      options;
    if (!(Number.isInteger(processes) && processes > 0)) {
      throw new RangeError(`DecoderPool: ${processes} processes: use a whole number above 0`);
    }
    this.parallel = processes;
    this.#options = { processes, timeout, memoryLimit, executable };
  }

  /** Decodes one image in another process. */
  async decode(image: string | Uint8Array<ArrayBuffer>, options?: DecodeOptions): Promise<DecodedImage> {
    const { reply, payload } = await this.#ask(image, { options });
    return { pixels: payload, height: reply.height, width: reply.width };
  }

  /** Measures one image in another process. */
  async measure(
    image: string | Uint8Array<ArrayBuffer>,
    options?: DecodeOptions,
  ): Promise<{ height: number; width: number }> {
    const { reply } = await this.#ask(image, { options, measure: true });
    return { height: reply.height, width: reply.width };
  }

  /** Ends all decoders, waiting for none of their answers. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(Array.from(this.#all, (process) => process.end()));
  }

  /** A decoder that is killed may be the victim of others, as when memory runs out: an image is asked for twice. */
  async #ask(image: string | Uint8Array<ArrayBuffer>, request: DecodeRequest) {
    try {
      return await this.#askOnce(image, request);
    } catch (error) {
      if (!(error instanceof KilledDecoder) || this.#closed) throw error;
      return await this.#askOnce(image, request);
    }
  }

  async #askOnce(image: string | Uint8Array<ArrayBuffer>, request: DecodeRequest) {
    const process = await this.#take();
    try {
      const whole = typeof image === "string" ? { ...request, path: image } : request;
      const { header, payload } = await process.ask(whole, typeof image === "string" ? undefined : image);
      if (!header.ok) throw new DecodeError(header.reason, header.passing);
      return { reply: header, payload };
    } finally {
      this.#giveBack(process);
    }
  }

  async #take(): Promise<DecoderProcess> {
    if (this.#closed) throw new Error("DecoderPool: closed");
    const process = this.#idle.pop();
    if (process) return process;
    if (this.#all.size < this.parallel) return this.#start();
    return await new Promise((resolve) => this.#waiting.push(resolve));
  }

  #giveBack(process: DecoderProcess): void {
    let usable = process;
    if (process.gone) {
      this.#all.delete(process);
      if (this.#waiting.length === 0 || this.#closed) return;
      usable = this.#start();
    }
    const next = this.#waiting.shift();
    if (next) next(usable);
    else this.#idle.push(usable);
  }

  #start(): DecoderProcess {
    const process = new DecoderProcess(this.#options);
    this.#all.add(process);
    return process;
  }
}

/** Somebody, or the system, killed the decoder. */
class KilledDecoder extends DecodeError {}

/** One child, with one request at a time. */
class DecoderProcess {
  /** Ended, or about to: not to be asked again. */
  gone = false;
  readonly #options: { timeout: number; memoryLimit: number };
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #output: ReadableStreamBYOBReader;
  readonly #errors: Promise<string>;
  readonly #ready: Promise<void>;
  #timedOut = false;

  constructor(options: { timeout: number; memoryLimit: number; executable?: string }) {
    this.#options = options;
    this.#child = decoderCommand(options.memoryLimit, options.executable).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#output = this.#child.stdout.getReader({ mode: "byob" });
    this.#errors = lastText(this.#child.stderr);
    this.#ready = this.#getReady();
    this.#ready.catch(() => {}); // reported where it is asked
  }

  async ask(request: DecodeRequest, bytes?: Uint8Array<ArrayBuffer>) {
    await this.#ready;
    const seconds = this.#options.timeout;
    const frame = await this.#within(seconds, async () => {
      await writeFrame({ write: (part) => this.#input.write(part.slice()).then(() => part.length) }, request, bytes);
      return await readFrame<DecodeReply>(this.#output);
    });
    if (frame) return frame;
    const { code, signal } = await this.#child.status;
    if (this.#timedOut) throw new DecodeError(`took longer than ${seconds} s to decode`);
    if (code === EXIT_BLOATED) {
      throw new DecodeError(`took more than ${this.#options.memoryLimit} bytes of memory to decode`);
    }
    if (signal === "SIGKILL") {
      throw new KilledDecoder("ended the decoder by SIGKILL, twice: memory may have run out", true);
    }
    throw new DecodeError(`ended the decoder ${signal ? `by ${signal}` : `with status ${code}`}`);
  }

  /** A decoder that does not even start would do the same for every image. */
  async #getReady(): Promise<void> {
    if (await this.#within(START_SECONDS, () => readFrame(this.#output))) return;
    const { code } = await this.#child.status;
    const said = await this.#errors;
    throw new DecoderFailure(
      `the image decoder did not start (${this.#timedOut ? `${START_SECONDS} s` : `status ${code}`})${
        said ? `: ${said}` : ""
      }`,
    );
  }

  /** What `work` gives; undefined, and the process ended, if that takes too long or the pipes break. */
  async #within<T>(seconds: number, work: () => Promise<T>): Promise<T | undefined> {
    // In ticks that last no longer than they should: time in which this process was stopped is nobody's fault.
    let left = seconds, last = performance.now();
    const tick = Math.min(1, seconds / 4);
    const timer = setInterval(() => {
      const now = performance.now();
      left -= Math.min((now - last) / 1000, 2 * tick);
      last = now;
      if (left > 0) return;
      this.#timedOut = true;
      this.#kill();
    }, tick * 1000);
    let result: T | undefined;
    try {
      result = await work();
    } catch {
      /* a pipe broke: the status says why */
    } finally {
      clearInterval(timer);
    }
    if (result === undefined) {
      this.gone = true;
      this.#kill();
    }
    return result;
  }

  async end(): Promise<void> {
    this.gone = true;
    this.#kill();
    await this.#child.status;
  }

  #kill(): void {
    try {
      this.#child.kill("SIGKILL");
    } catch { /* ended already */ }
  }
}

function decoderCommand(memoryLimit: number, executable?: string): Deno.Command {
  const env = Deno.env.toObject();
  delete env.DENO_V8_FLAGS; // decoders run on stock V8 whatever this process runs on; an empty value would be fatal
  env.DENO_NO_PACKAGE_JSON = "1"; // a package.json in the working folder would change how npm: is resolved
  const streams = { env, clearEnv: true, stdin: "piped", stdout: "piped", stderr: "piped" } as const;
  const limit = String(memoryLimit);
  if (Deno.build.standalone || executable) {
    return new Deno.Command(executable ?? Deno.execPath(), { args: [DECODER_COMMAND, limit], ...streams });
  }
  const module = import.meta.resolve("./decoder.ts");
  // Beside a local module lie its deno.json and lock file; for a remote one, those of the working folder mean nothing.
  const config = module.startsWith("file:") ? [] : ["--no-config"];
  const permissions = ["--no-prompt", "--allow-read", "--allow-env", "--allow-sys", "--allow-ffi"]; // ffi: native sharp
  const args = ["run", "--quiet", ...config, ...permissions, module, limit];
  return new Deno.Command(Deno.execPath(), { args, ...streams });
}

/** The end of what a stream says, in one line. */
async function lastText(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  for await (const part of stream.pipeThrough(new TextDecoderStream())) text = (text + part).slice(-2000);
  // deno-lint-ignore no-control-regex
  return text.replace(/\x1b\[[0-9;]*m/g, "").trim().split("\n").slice(-5).join(" | ");
}
