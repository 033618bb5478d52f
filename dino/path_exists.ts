// Whether there is anything at a path.

/** True if a file or folder is there and may be looked at. */
export async function pathExists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}
