// The lock file that a binary is compiled with: without sharp's native libraries, which a binary cannot load.

/** As much of a lock file as matters here. */
interface LockFile {
  npm?: Record<string, { dependencies?: string[]; optionalDependencies?: string[] }>;
}

/** sharp's packages for one platform each; its WebAssembly build is named @img/sharp-wasm32. */
const isNativeSharp = (name: string) => /^@img\/sharp-(?!wasm32(@|$))/.test(name);

/**
 * A copy of a lock file (its text) without sharp's native packages; 36 MB less in a binary.
 *
 * @throws {SyntaxError} if the text is not JSON
 */
export function lockWithoutNativeSharp(text: string): string {
  const lock: LockFile = JSON.parse(text);
  for (const [name, entry] of Object.entries(lock.npm ?? {})) {
    if (isNativeSharp(name)) {
      delete lock.npm![name];
      continue;
    }
    for (const kind of ["dependencies", "optionalDependencies"] as const) {
      const kept = entry[kind]?.filter((dependency) => !isNativeSharp(dependency));
      if (kept?.length) entry[kind] = kept;
      else delete entry[kind];
    }
  }
  return JSON.stringify(lock, null, 2) + "\n";
}
