// Which program this is, in which mode, on what.
import manifest from "../../deno.json" with { type: "json" };
import { builtMode, preferredMode } from "../processes/mode.ts";

/** The project's version. */
export const VERSION: string = manifest.version;

/** What --version prints. */
export function versionText(): string {
  const built = builtMode();
  const mode = built ?? preferredMode(false);
  const how = built
    ? `compiled ${mode}`
    : mode === "turbo"
    ? "turbo; --checked keeps bounds checks"
    : "checked; turbo needs an x86-64 processor";
  const { deno, v8 } = Deno.version;
  return `denodino ${VERSION} (${how}), Deno ${deno}, V8 ${v8}, ${Deno.build.target}`;
}
