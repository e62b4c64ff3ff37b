// README and docs: every link leads somewhere.
import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));
const folders = [".", "docs", "docs/backends"];
const pages = folders.flatMap((folder) => readdirSync(join(root, folder)).map((name) => join(folder, name))).filter((name) => name.endsWith(".md"));

for (const page of pages) {
  test(`the links of ${page} lead somewhere`, () => {
    const text = readFileSync(join(root, page), "utf8");
    const links = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link]) => link).filter((link) => !/^(https?:|#)/.test(link));
    const broken = links.filter((link) => !existsSync(join(root, dirname(page), link.split("#")[0])));
    assert.deepEqual(broken, []);
  });
}
