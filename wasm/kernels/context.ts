// What a thread knows of its surroundings. Globals are per instance, so these belong to one thread.
// No static data, strings or heap in any kernel: every instantiation would write them again into the shared memory.

/** Private scratch of this thread. */
export let scratch: usize = 0;
/** 256 zero bytes. */
export let zeros: usize = 0;
/** Constants of the vector functions; see math.ts. */
export let constants: usize = 0;
/** Shape of the micro-kernel's tile. */
export let tileRows: u32 = 4;
export let tileColumns: u32 = 8;

export function setContext(privateScratch: usize, zeroBytes: usize, table: usize, rows: u32, columns: u32): void {
  scratch = privateScratch;
  zeros = zeroBytes;
  constants = table;
  tileRows = rows;
  tileColumns = columns;
}
