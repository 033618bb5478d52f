// The lock file that a binary is compiled with: without build tools, and without sharp's native libraries, which a
// binary cannot load. `deno compile` embeds every package its lock file names.

/** As much of a lock file as matters here. */
interface LockFile {
  specifiers?: Record<string, string>;
  npm?: Record<string, { dependencies?: string[]; optionalDependencies?: string[] }>;
}

/** sharp's packages for one platform each; its WebAssembly build is named @img/sharp-wasm32. */
const isNativeSharp = (name: string) => /^@img\/sharp-(?!wasm32(@|$))/.test(name);

/** What builds and tests the project, and no command imports. */
const isTool = (specifier: string) => /^npm:(assemblyscript|playwright-core|@webgpu\/types)@/.test(specifier);

/**
 * A copy of a lock file (its text) with what a binary needs; 135 MB less in it.
 *
 * @throws {SyntaxError} if the text is not JSON
 */
export function lockForBinary(text: string): string {
  const lock: LockFile = JSON.parse(text);
  const { specifiers = {}, npm = {} } = lock;
  for (const [name, entry] of Object.entries(npm)) {
    if (isNativeSharp(name)) {
      delete npm[name];
      continue;
    }
    for (const kind of ["dependencies", "optionalDependencies"] as const) {
      const kept = entry[kind]?.filter((dependency) => !isNativeSharp(dependency));
      if (kept?.length) entry[kind] = kept;
      else delete entry[kind];
    }
  }
  for (const specifier of Object.keys(specifiers)) if (isTool(specifier)) delete specifiers[specifier];
  const reachable = reachablePackages(specifiers, npm);
  for (const name of Object.keys(npm)) if (!reachable.has(name)) delete npm[name];
  return JSON.stringify(lock, null, 2) + "\n";
}

/** Keys of `npm` that the specifiers lead to. */
function reachablePackages(specifiers: Record<string, string>, npm: NonNullable<LockFile["npm"]>): Set<string> {
  const names = Object.keys(npm);
  const reached = new Set<string>();
  const visit = (wanted: string) => {
    // A dependency is written with its version only where there are several.
    for (const name of names) {
      if (reached.has(name) || name !== wanted && name.slice(0, name.lastIndexOf("@")) !== wanted) continue;
      reached.add(name);
      for (const next of [...npm[name].dependencies ?? [], ...npm[name].optionalDependencies ?? []]) visit(next);
    }
  };
  for (const [specifier, version] of Object.entries(specifiers)) {
    visit(`${specifier.replace(/^npm:/, "").replace(/(.)@.*$/, "$1")}@${version}`);
  }
  return reached;
}
