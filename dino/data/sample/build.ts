// Rebuilds the embedded sample from its four IDX files: deno run -A dino/data/sample/build.ts FOLDER

/** The files, as Fashion-MNIST names them; embedded in base64 because only text can be imported everywhere. */
const FILES = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"];
const LINE = 120;

if (import.meta.main) {
  const [folder] = Deno.args;
  if (!folder) {
    console.error(
      "usage: deno run -A dino/data/sample/build.ts FOLDER (which holds train-images-idx3-ubyte.gz and so on)",
    );
    Deno.exit(2);
  }
  for (const file of FILES) {
    const base64 = (await Deno.readFile(`${folder}/${file}-ubyte.gz`)).toBase64();
    const lines = base64.match(new RegExp(`.{1,${LINE}}`, "g"))!;
    await Deno.writeTextFile(new URL(`${file}.b64`, import.meta.url), lines.join("\n") + "\n");
  }
  await Deno.copyFile(`${folder}/COPYRIGHT`, new URL("COPYRIGHT", import.meta.url));
}
