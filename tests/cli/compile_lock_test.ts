// The lock file for compiling: only sharp's native packages go.

import { lockWithoutNativeSharp } from "../../cli/compile_lock.ts";
import { assertEquals } from "../assert.ts";

Deno.test("the lock for compiling drops sharp's native packages and nothing else", () => {
  const lock = {
    version: "5",
    specifiers: { "npm:sharp@1": "1.0.0" },
    npm: {
      "sharp@1.0.0": {
        integrity: "a",
        dependencies: ["semver"],
        optionalDependencies: ["@img/sharp-linux-x64", "@img/sharp-libvips-linux-x64"],
      },
      "@img/sharp-linux-x64@1.0.0": { integrity: "b", os: ["linux"] },
      "@img/sharp-libvips-linux-x64@1.0.0": { integrity: "c" },
      "@img/sharp-wasm32@1.0.0": { integrity: "d", dependencies: ["@emnapi/runtime"] },
      "@img/colour@1.0.0": { integrity: "e" },
    },
  };
  assertEquals(JSON.parse(lockWithoutNativeSharp(JSON.stringify(lock))), {
    version: "5",
    specifiers: { "npm:sharp@1": "1.0.0" },
    npm: {
      "sharp@1.0.0": { integrity: "a", dependencies: ["semver"] },
      "@img/sharp-wasm32@1.0.0": { integrity: "d", dependencies: ["@emnapi/runtime"] },
      "@img/colour@1.0.0": { integrity: "e" },
    },
  });
});
