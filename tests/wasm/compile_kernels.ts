// Compiles the kernels and nothing else: run with V8's tracing flags, it shows what becomes of each.
import kernels from "../../wasm/kernels.b64" with { type: "text" };

new WebAssembly.Module(Uint8Array.fromBase64(kernels));
