// A Python with the PyTorch that is compared with: the one given, or one installed once into the user's cache.

const VERSION = "2.13.0";
/** What to ask pip for, until one of them is to be had: the build without CUDA as pip is set up, from PyTorch's own index, any build. */
const SOURCES = [
  [`torch==${VERSION}+cpu`],
  [`torch==${VERSION}`, "--index-url", "https://download.pytorch.org/whl/cpu"],
  [`torch==${VERSION}`],
];

/**
 * A Python that imports torch. Installing it takes some 200 MB and a Python 3 with `venv` (Debian: `python3-venv`).
 *
 * @throws {Error} if it cannot be installed, with what pip said
 */
export async function pythonWithTorch(given?: string): Promise<string> {
  if (given !== undefined) return given;
  const folder = `${cacheFolder()}/denodino-bench/pytorch-${VERSION}`;
  const windows = Deno.build.os === "windows";
  const python = windows ? `${folder}/Scripts/python.exe` : `${folder}/bin/python`;
  const version = `import torch; assert torch.__version__.startswith("${VERSION}"), torch.__version__`;
  if ((await outcome(python, "-c", version)).success) return python;
  console.error(`installing PyTorch ${VERSION} into ${folder} …`);
  const made = await outcome(windows ? "python" : "python3", "-m", "venv", "--clear", folder);
  if (!made.success) throw new Error(`no virtual environment in ${folder}: ${made.said}: give one with --python`);
  let said = "";
  for (const source of SOURCES) {
    const installed = await outcome(python, "-m", "pip", "install", "--quiet", "numpy", ...source);
    if (installed.success) return python;
    said = installed.said;
  }
  throw new Error(`PyTorch ${VERSION} cannot be installed: ${said}: give a Python that has it with --python`);
}

function cacheFolder(): string {
  const { env, build: { os } } = Deno;
  const home = env.get("HOME") ?? env.get("USERPROFILE") ?? ".";
  if (os === "windows") return env.get("LOCALAPPDATA") ?? home;
  return env.get("XDG_CACHE_HOME") ?? (os === "darwin" ? `${home}/Library/Caches` : `${home}/.cache`);
}

async function outcome(command: string, ...args: string[]): Promise<{ success: boolean; said: string }> {
  try {
    const { success, stderr } = await new Deno.Command(command, { args, stdout: "null", stderr: "piped" }).output();
    return { success, said: new TextDecoder().decode(stderr).trim().split("\n").at(-1) ?? "" };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { success: false, said: `there is no ${command}` };
    throw error;
  }
}
