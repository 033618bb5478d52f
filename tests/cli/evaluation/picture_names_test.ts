import { pictureNames } from "../../../cli/evaluation/picture_names.ts";
import { assertEquals } from "../../assert.ts";

Deno.test("names of pictures: without extension and shared folders, and never the same twice", () => {
  assertEquals(pictureNames(["photo, 1.jpg"]), ["photo, 1"]);
  assertEquals(pictureNames(["/a/b/c.d/photo.jpg"]), ["photo"]);
  assertEquals(pictureNames(["x/a/1.jpg", "x/b/1.jpg", "x/b/2.jpg"]), ["a_1", "b_1", "b_2"]);
  assertEquals(pictureNames(["x/ab/1.jpg", "x/a/1.jpg"]), ["ab_1", "a_1"]);
  assertEquals(pictureNames(["x/1.jpg", "x/1.png", "x/2.png"]), ["1.jpg", "1.png", "2"]);
  assertEquals(pictureNames(["a_b.png", "a/b.png"]).length, new Set(pictureNames(["a_b.png", "a/b.png"])).size);
  assertEquals(pictureNames([".png", "b"]), [".png", "b"]);
  assertEquals(pictureNames([]), []);
});
