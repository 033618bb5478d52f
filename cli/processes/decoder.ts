// A process that decodes images for another one: requests on stdin, pixels on stdout, nothing else in the world.

import { createDecoder, DecodeError } from "../../dino/data/decode.ts";
import { loadSharp } from "../../dino/data/sharp.ts";
import {
  type DecodeReply,
  type DecodeRequest,
  EXIT_BLOATED,
  readFrame,
  READY,
  writeFrame,
} from "./decoder_protocol.ts";
import { leaveToParent } from "./signals.ts";

/** How often a decoder looks at its own memory. */
const MEMORY_CHECK_MS = 100;

/**
 * Serves decode requests until stdin closes.
 *
 * @param memoryLimit bytes of resident memory at which the process ends itself
 */
export async function serveDecoder(memoryLimit: number): Promise<never> {
  leaveToParent();
  setInterval(() => {
    if (Deno.memoryUsage().rss > memoryLimit) Deno.exit(EXIT_BLOATED);
  }, MEMORY_CHECK_MS);
  const sharp = await loadSharp();
  sharp.concurrency(1); // there is a process for every core
  const decoder = createDecoder();
  const input = Deno.stdin.readable.getReader({ mode: "byob" });
  // Written at once: there is nothing else to do meanwhile, and it is several times as fast.
  const output = { write: (bytes: Uint8Array) => Promise.resolve(Deno.stdout.writeSync(bytes)) };
  await writeFrame(output, READY);
  for (;;) {
    const frame = await readFrame<DecodeRequest>(input);
    if (!frame) Deno.exit(0);
    const { header, payload } = frame;
    let reply: DecodeReply;
    let pixels = new Uint8Array(0);
    try {
      const image = header.path ?? payload;
      if (header.measure) {
        reply = { ok: true, ...await decoder.measure(image, header.options) };
      } else {
        const decoded = await decoder.decode(image, header.options);
        reply = { ok: true, height: decoded.height, width: decoded.width };
        pixels = decoded.pixels;
      }
    } catch (error) {
      reply = { ok: false, reason: (error as Error).message, passing: error instanceof DecodeError && error.passing };
    }
    await writeFrame(output, reply, pixels);
  }
}

/** The one argument is the memory limit in bytes. */
export async function main(args: string[]): Promise<never> {
  return await serveDecoder(Number(args[0]) || Infinity);
}

if (import.meta.main) await main(Deno.args);
