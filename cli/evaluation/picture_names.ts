// Names for what is drawn of each image: those of the images, without the folders they share.

/**
 * A name for each image that a file or folder can have, all different.
 *
 * @param ids paths of images, such as `photos/a/1.jpg`
 */
export function pictureNames(ids: readonly string[]): string[] {
  const slashed = ids.map((id) => id.replaceAll("\\", "/"));
  let shared = slashed[0]?.lastIndexOf("/") + 1;
  for (const id of slashed) {
    while (shared > 0 && !id.startsWith(slashed[0].slice(0, shared))) {
      shared = slashed[0].lastIndexOf("/", shared - 2) + 1;
    }
  }
  const whole = slashed.map((id) => id.slice(shared).replaceAll("/", "_"));
  const stems = whole.map((name) => name.replace(/(?<=.)\.[^.]*$/, ""));
  const count = new Map<string, number>();
  for (const stem of stems) count.set(stem, (count.get(stem) ?? 0) + 1);
  const names = stems.map((stem, i) => count.get(stem)! > 1 ? whole[i] : stem); // 1.jpg and 1.png
  return new Set(names).size === names.length ? names : names.map((name, i) => `${i}_${name}`);
}
