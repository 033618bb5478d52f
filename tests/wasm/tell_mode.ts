// Opens the CPU backend as a program that uses the library does, and prints what it says of itself.
import { openWasm } from "../../wasm/mod.ts";

const backend = await openWasm({ threads: 1 });
console.log(backend.description);
await backend.close();
