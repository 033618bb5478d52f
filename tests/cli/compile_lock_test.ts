// The lock file for compiling: sharp's native packages and build tools go.

import { lockForBinary } from "../../cli/compile_lock.ts";
import { assertEquals } from "../assert.ts";

Deno.test("the lock for compiling drops sharp's native packages, build tools, and nothing else", () => {
  const lock = {
    version: "5",
    specifiers: { "npm:sharp@1": "1.0.0", "npm:@img/sharp-wasm32@1.0.0": "1.0.0", "npm:assemblyscript@2": "2.0.0" },
    npm: {
      "assemblyscript@2.0.0": { integrity: "t", dependencies: ["binaryen", "semver@8.0.0"] },
      "binaryen@3.0.0": { integrity: "b" },
      "semver@7.0.0": { integrity: "s" },
      "semver@8.0.0": { integrity: "s" },
      "@emnapi/runtime@1.0.0": { integrity: "r" },
      "sharp@1.0.0": {
        integrity: "a",
        dependencies: ["@img/colour", "semver@7.0.0"],
        optionalDependencies: ["@img/sharp-linux-x64", "@img/sharp-libvips-linux-x64"],
      },
      "@img/sharp-linux-x64@1.0.0": { integrity: "b", os: ["linux"] },
      "@img/sharp-libvips-linux-x64@1.0.0": { integrity: "c" },
      "@img/sharp-wasm32@1.0.0": { integrity: "d", dependencies: ["@emnapi/runtime"] },
      "@img/colour@1.0.0": { integrity: "e" },
    },
  };
  assertEquals(JSON.parse(lockForBinary(JSON.stringify(lock))), {
    version: "5",
    specifiers: { "npm:sharp@1": "1.0.0", "npm:@img/sharp-wasm32@1.0.0": "1.0.0" },
    npm: {
      "semver@7.0.0": { integrity: "s" },
      "@emnapi/runtime@1.0.0": { integrity: "r" },
      "sharp@1.0.0": { integrity: "a", dependencies: ["@img/colour", "semver@7.0.0"] },
      "@img/sharp-wasm32@1.0.0": { integrity: "d", dependencies: ["@emnapi/runtime"] },
      "@img/colour@1.0.0": { integrity: "e" },
    },
  });
});
